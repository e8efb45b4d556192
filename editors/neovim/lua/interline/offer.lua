--- The offer of the recommended model: made once, to those who use the default one and have seen what
--- it does.

local server = require('interline.server')

local M = {}

--- Lines with ghost text that the user has seen before the offer is made.
local ENOUGH = 20

local seen = 0
--- The line in which ghost text was shown last.
---@type string?
local last

--- The file with the name of the model that was offered last.
---@return string
local function record()
  return vim.fs.joinpath(vim.fn.stdpath('state'), 'interline', 'offered')
end

--- Whether this model was offered before. From now on it was.
---@param name string
---@return boolean
local function offered(name)
  local file = record()
  if vim.fn.filereadable(file) == 1 and vim.fn.readfile(file)[1] == name then
    return true
  end
  vim.fn.mkdir(vim.fs.dirname(file), 'p')
  vim.fn.writefile({ name }, file)
  return false
end

--- Counts the lines in which ghost text is shown.
---@param bufnr integer
---@param row integer
function M.shown(bufnr, row)
  local line = bufnr .. ':' .. row
  if line ~= last then
    seen, last = seen + 1, line
  end
end

--- Makes the offer if it is time. To be called when the user pauses.
function M.pause()
  local decided = vim.g.interline_offer == false or server.setting('offline') or server.setting('model')
  local client = server.client()
  if seen < ENOUGH or decided or not client then
    return
  end
  -- Not before as many more.
  seen = 0
  local params = { command = 'interline.models', arguments = {} }
  -- The user has asked for nothing, so an error is not shown.
  client:request('workspace/executeCommand', params, function(_, all)
    for _, model in ipairs(all and all[1].inUse and all or {}) do
      if model.recommended and not offered(model.name) then
        -- Short, so that it does not wait for a key.
        vim.notify(('Interline: %s completes better: :Interline models'):format(model.name))
      end
    end
  end)
end

return M
