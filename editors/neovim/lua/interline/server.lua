--- The server process: finding it, its status, and restarts after crashes.

local M = {}

--- How long to wait, in seconds. A table, so that tests can shorten the waits.
M.patience = {
  -- Before each restart after a crash. After the last one, there are no more restarts.
  restart = { 1, 2, 4, 8 },
  -- A server that has run this long started well, and earlier crashes no longer count.
  good_start = 60,
  -- A server that has not answered by then is reported.
  answer = 15,
  -- A server that has not stopped by then is killed.
  stop = 2,
}

---@class interline.Status
---@field kind 'Normal'|'Error'|'Warning'|'Inactive'
---@field busy boolean
---@field message string

---@type interline.Status?
local status
local crashes = 0
local started = 0
--- The start that the server has not answered yet.
---@type table?
local starting
local missing_reported = false

---@param message string
---@param level integer
local function notify(message, level)
  vim.notify('Interline: ' .. message, level)
end

--- The server's executable: `$INTERLINE_SERVER`, the one built in the repository that contains this
--- plugin, or `interline` on the path. `cmd` in the configuration takes precedence over all of them.
---@return string
function M.executable()
  local named = vim.env.INTERLINE_SERVER
  if named and named ~= '' then
    return named
  end
  local plugin = vim.fs.dirname(debug.getinfo(1, 'S').source:sub(2))
  local suffix = vim.fn.has('win32') == 1 and '.exe' or ''
  local built = vim.fs.normalize(plugin .. '/../../../../target/release/interline' .. suffix)
  return vim.fn.executable(built) == 1 and built or 'interline'
end

--- What is wrong with the executable, and what to do about it.
---@return string?
function M.problem()
  local cmd = vim.lsp.config.interline.cmd
  if type(cmd) == 'table' and vim.fn.executable(cmd[1]) == 0 then
    return ('%s is missing or not executable; build it with `cargo install --path .`, or name it in '):format(cmd[1])
      .. "`vim.lsp.config('interline', { cmd = { '/path/to/interline' } })` or $INTERLINE_SERVER"
  end
end

--- Whether to start the server: not after too many crashes.
---@return boolean
function M.may_start()
  return crashes <= #M.patience.restart
end

--- Reports a missing executable, once. Neovim silently skips such a server.
function M.report_missing()
  local problem = M.problem()
  if problem and not missing_reported then
    missing_reported = true
    vim.schedule(function()
      notify(problem, vim.log.levels.ERROR)
    end)
  end
end

---@param params lsp.InitializeParams
---@param config vim.lsp.ClientConfig
function M.before_init(params, config)
  params.initializationOptions = vim.tbl_get(config, 'settings', 'interline')
  status = { kind = 'Normal', busy = true, message = 'starting' }
  started = vim.uv.now()
  local this = {}
  starting = this
  vim.defer_fn(function()
    if starting == this then
      status = { kind = 'Error', busy = false, message = 'the server does not answer' }
      notify('the server does not answer; see `:Interline log`, try `:Interline restart`', vim.log.levels.ERROR)
    end
  end, M.patience.answer * 1000)
end

function M.on_init()
  starting = nil
end

--- Neovim calls this outside the main loop.
---@param code integer
---@param signal integer
function M.on_exit(code, signal)
  local answered = starting == nil
  starting = nil
  vim.schedule(function()
    -- Neovim stops it with a request, or with signal 15 if it does not answer.
    local intended = vim.v.exiting ~= vim.NIL or signal == 15 or (code == 0 and signal == 0 and answered)
    status = nil
    vim.cmd.redrawstatus({ bang = true })
    if not intended then
      M.crashed(signal ~= 0 and ('signal ' .. signal) or ('exit code ' .. code))
    end
  end)
end

--- Handles a crash: restarts the server, later each time, and finally gives up.
---@param how string
function M.crashed(how)
  if vim.uv.now() - started > M.patience.good_start * 1000 then
    crashes = 0
  end
  crashes = crashes + 1
  local wait = M.patience.restart[crashes]
  if not wait then
    status = { kind = 'Error', busy = false, message = 'the server keeps stopping with ' .. how }
    notify(
      (
        'the server has stopped %d times, most recently with %s, and will not be restarted; '
        .. 'see `:Interline log`, then `:Interline restart`'
      ):format(crashes, how),
      vim.log.levels.ERROR
    )
    return
  end
  status = { kind = 'Warning', busy = true, message = ('stopped with %s, restarting'):format(how) }
  notify(('the server stopped with %s; it will restart in %g s'):format(how, wait), vim.log.levels.WARN)
  vim.defer_fn(function()
    if vim.lsp.is_enabled('interline') and not M.client() then
      M.start()
    end
  end, wait * 1000)
end

--- The running client; if a buffer is given, only if it is attached to that buffer.
---@param bufnr integer?
---@return vim.lsp.Client?
function M.client(bufnr)
  for _, client in ipairs(vim.lsp.get_clients({ name = 'interline', bufnr = bufnr })) do
    if not client:is_stopped() then
      return client
    end
  end
end

--- Starts the server if it is not running, and attaches it to all buffers with files.
function M.start()
  missing_reported = false
  vim.lsp.enable('interline')
end

--- Restarts the server with the current settings.
function M.restart()
  crashes = 0
  local running = function()
    return vim.lsp.get_clients({ name = 'interline', _uninitialized = true })
  end
  vim.lsp.enable('interline', false)
  local patient_until = vim.uv.now() + M.patience.stop * 1000
  local timer = assert(vim.uv.new_timer())
  timer:start(0, 20, vim.schedule_wrap(function()
    if timer:is_closing() then
      return
    elseif #running() == 0 then
      timer:close()
      M.start()
    elseif vim.uv.now() > patient_until then
      -- A server that does not answer does not stop on request either.
      for _, client in ipairs(running()) do
        client:stop(true)
      end
    end
  end))
end

--- A setting of the server, if it is set.
---@param name string
---@return any
function M.setting(name)
  return vim.lsp.config.interline.settings.interline[name]
end

--- Changes settings of the running server and of later ones.
---@param settings table<string, any>
function M.configure(settings)
  local config = vim.deepcopy(vim.lsp.config.interline)
  for name, value in pairs(settings) do
    config.settings.interline[name] = value
  end
  vim.lsp.config.interline = config
  local client = M.client()
  if client then
    client.settings = config.settings
    client:notify('workspace/didChangeConfiguration', { settings = config.settings })
  end
end

--- Asks for the status in the current buffer. The server answers with `didChangeStatus`.
---@param client vim.lsp.Client
---@param bufnr integer
function M.focus(client, bufnr)
  if bufnr == vim.api.nvim_get_current_buf() then
    client:notify('textDocument/didFocus', { textDocument = vim.lsp.util.make_text_document_params(bufnr) })
  end
end

---@type lsp.Handler
function M.did_change_status(_, result)
  status = result
  vim.cmd.redrawstatus({ bang = true })
end

--- The latest status from the server; `nil` if it is not running.
---@return interline.Status?
function M.status()
  return status
end

return M
