--- The server's commands: running them, their progress, and cancelling those that are not done.

local server = require('interline.server')

local M = {}

---@class interline.Report
---@field message string?
---@field percentage integer?

---@class interline.Running
---@field client vim.lsp.Client
---@field token? string
---@field progress? fun(report: interline.Report)
---@field percentage integer?

--- The requests that are not answered yet, by their ids.
---@type table<integer, interline.Running>
local running = {}

---@param message string
function M.fail(message)
  vim.notify('Interline: ' .. message, vim.log.levels.ERROR)
end

---@param message string
function M.say(message)
  vim.api.nvim_echo({ { message } }, false, {})
end

--- The running client. Without one, tells the user why.
---@return vim.lsp.Client?
function M.client()
  local found = server.client()
  if not found then
    local status = server.status()
    M.fail(
      server.problem()
        or (status and status.message)
        or 'the server is not running; open a file, or try `:Interline restart`'
    )
  end
  return found
end

--- Runs one of the server's commands and passes its answer on. An error is shown. Without `progress`, the server tells
--- Neovim of it by itself, if it takes long.
---@param command string
---@param arguments any[]
---@param answer fun(result: any)
---@param progress? fun(report: interline.Report)
function M.run(command, arguments, answer, progress)
  local client = M.client()
  if not client then
    return
  end
  local token = progress and 'interline.' .. vim.uv.hrtime()
  local params = { command = command, arguments = arguments, workDoneToken = token }
  local id
  local sent
  sent, id = client:request('workspace/executeCommand', params, function(err, result)
    running[id] = nil
    vim.cmd.redrawstatus({ bang = true })
    if err then
      M.fail(err.message)
    else
      answer(result)
    end
    -- Pass the buffer's number: with 0, Neovim 0.11 does not send the latest changes first.
  end, vim.api.nvim_get_current_buf())
  if sent then
    running[id] = { client = client, token = token, progress = progress }
  end
end

--- Handles `$/progress`.
---@param params lsp.ProgressParams
function M.hear(params)
  for _, request in pairs(running) do
    if request.progress and request.token == params.token and params.value.kind ~= 'end' then
      request.percentage = params.value.percentage or request.percentage
      vim.cmd.redrawstatus({ bang = true })
      request.progress(params.value)
    end
  end
end

--- Cancels all that is not done.
---@return boolean cancelled Whether there was anything.
function M.cancel()
  local any = false
  for id, request in pairs(running) do
    any = any or not request.client:is_stopped()
    -- Neovim does not pass the answer to a cancelled request on.
    request.client:cancel_request(id)
  end
  running = {}
  vim.cmd.redrawstatus({ bang = true })
  return any
end

--- How much of what runs is done, if that is known.
---@return integer?
function M.percentage()
  for _, request in pairs(running) do
    if request.percentage and not request.client:is_stopped() then
      return request.percentage
    end
  end
end

return M
