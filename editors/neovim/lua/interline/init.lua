--- What keys and status lines call. The keys are in |interline-keys|.

local M = {}

--- Takes the ghost text, or its beginning, into the buffer.
---@param part? 'all'|'word'|'line'
---@return boolean taken Whether there was ghost text.
function M.accept(part)
  return require('interline.ghost').accept(part or 'all')
end

--- Whether ghost text is shown.
---@return boolean
function M.visible()
  return require('interline.ghost').visible()
end

--- Shows another candidate; asks for several if there is only one.
---@param step? integer 1 for the next, -1 for the one before
function M.cycle(step)
  require('interline.ghost').cycle(step or 1)
end

--- Asks by hand: more candidates, longer ones, and where nothing comes by itself.
function M.trigger()
  require('interline.ghost').trigger()
end

--- Hides the ghost text until the next change.
---@return boolean hidden Whether there was ghost text.
function M.dismiss()
  return require('interline.ghost').dismiss()
end

--- For a status line: `Interline`, followed by what is not as usual.
---@return string
function M.status()
  local status = require('interline.server').status()
  if not status then
    return ''
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
