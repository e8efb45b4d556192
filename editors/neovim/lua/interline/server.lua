--- The server as a process: where it is, how it does, and starting it again when it has crashed.

local M = {}

--- How long to wait, in seconds; a table so that the tests need not.
M.patience = {
  -- Before each new start after a crash; then it is given up.
  restart = { 1, 2, 4, 8 },
  -- After this time a start counts as good.
  good_start = 60,
  -- After this time a server that has not answered is reported.
  answer = 15,
  -- After this time a server that was told to end is ended by a signal.
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
--- The start that has not been answered yet.
---@type table?
local starting
local missing_reported = false

---@param message string
---@param level integer
local function notify(message, level)
  vim.notify('Interline: ' .. message, level)
end

--- The server's executable: `$INTERLINE_SERVER`, or the one built in the repository this plugin
--- stands in, or `interline` on the path. `cmd` in the configuration comes before all of them.
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

--- Whether it is worth starting: not after it has crashed too often.
---@return boolean
function M.may_start()
  return crashes <= #M.patience.restart
end

--- Says once if the executable is not there: Neovim leaves such a server alone without a word.
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

--- Runs outside the main loop.
---@param code integer
---@param signal integer
function M.on_exit(code, signal)
  local answered = starting == nil
  starting = nil
  vim.schedule(function()
    -- It is told to end by request, or by signal 15 if it does not listen.
    local intended = vim.v.exiting ~= vim.NIL or signal == 15 or (code == 0 and signal == 0 and answered)
    status = nil
    vim.cmd.redrawstatus({ bang = true })
    if not intended then
      M.crashed(signal ~= 0 and ('signal ' .. signal) or ('exit code ' .. code))
    end
  end)
end

--- Starts again, later each time, and at last not any more.
---@param how string
function M.crashed(how)
  if vim.uv.now() - started > M.patience.good_start * 1000 then
    crashes = 0
  end
  crashes = crashes + 1
  local wait = M.patience.restart[crashes]
  if not wait then
    status = { kind = 'Error', busy = false, message = 'the server keeps ending with ' .. how }
    notify(
      ('the server has ended %d times, now with %s, and is left alone; see `:Interline log`, then `:Interline restart`')
        :format(crashes, how),
      vim.log.levels.ERROR
    )
    return
  end
  status = { kind = 'Warning', busy = true, message = ('ended with %s, starts again'):format(how) }
  notify(('the server ended with %s; it starts again in %g s'):format(how, wait), vim.log.levels.WARN)
  vim.defer_fn(function()
    if vim.lsp.is_enabled('interline') and not M.client() then
      M.start()
    end
  end, wait * 1000)
end

--- The running client, of a buffer if one is given.
---@param bufnr integer?
---@return vim.lsp.Client?
function M.client(bufnr)
  for _, client in ipairs(vim.lsp.get_clients({ name = 'interline', bufnr = bufnr })) do
    if not client:is_stopped() then
      return client
    end
  end
end

--- Starts the server where it is not running, and attaches it to every buffer of a file.
function M.start()
  missing_reported = false
  vim.lsp.enable('interline')
end

--- Ends the server and starts a new one, with the settings as they are now.
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
      -- A server that does not answer does not end by request either.
      for _, client in ipairs(running()) do
        client:stop(true)
      end
    end
  end))
end

--- Changes settings of the running server and of those to come.
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

--- Asks for the status of the buffer the user looks at; the answer is `didChangeStatus`.
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

--- What the server said of itself last; nothing when it is not running.
---@return interline.Status?
function M.status()
  return status
end

return M
