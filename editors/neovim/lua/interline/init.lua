--- The functions for mappings and status lines. For the default keys, see |interline-keys|.

local M = {}

--- Inserts the ghost text, or its first part, into the buffer.
---@param part? 'all'|'word'|'line'
---@return boolean accepted Whether there was ghost text.
function M.accept(part)
  return require('interline.ghost').accept(part or 'all')
end

--- Whether ghost text is shown.
---@return boolean
function M.visible()
  return require('interline.ghost').visible()
end

--- Shows another candidate. Requests more if there is only one.
---@param step? integer 1 for the next candidate, -1 for the previous one
function M.cycle(step)
  require('interline.ghost').cycle(step or 1)
end

--- Invokes a completion: longer, with several candidates, and also where none appears automatically.
function M.trigger()
  require('interline.ghost').trigger()
end

--- Hides the ghost text until the next change.
---@return boolean hidden Whether there was ghost text.
function M.dismiss()
  return require('interline.ghost').dismiss()
end

--- For a status line: `Interline`, followed by anything unusual or the progress of a download.
---@return string
function M.status()
  local status = require('interline.server').status()
  local percentage = require('interline.execute').percentage()
  if not status then
    return ''
  elseif percentage then
    return ('Interline %d %%'):format(percentage)
  elseif status.busy then
    return 'Interline …'
  elseif status.kind == 'Normal' then
    return 'Interline'
  elseif status.kind == 'Inactive' then
    return 'Interline off'
  end
  return 'Interline ' .. status.kind:lower()
end

return M
