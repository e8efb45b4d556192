--- `:Interline` and its subcommands.

local server = require('interline.server')

local M = {}

---@param message string
local function fail(message)
  vim.notify('Interline: ' .. message, vim.log.levels.ERROR)
end

---@param message string
local function say(message)
  vim.api.nvim_echo({ { message } }, false, {})
end

--- The running client. Without one, tells the user why.
---@return vim.lsp.Client?
local function client()
  local running = server.client()
  if not running then
    local status = server.status()
    fail(
      server.problem()
        or (status and status.message)
        or 'the server is not running; open a file, or try `:Interline restart`'
    )
  end
  return running
end

--- Runs one of the server's commands and passes its answer on.
---@param command string
---@param arguments any[]
---@param answer fun(result: any)
local function execute(command, arguments, answer)
  local running = client()
  if running then
    local params = { command = command, arguments = arguments }
    running:request('workspace/executeCommand', params, function(err, result)
      if err then
        fail(err.message)
      else
        answer(result)
      end
      -- Pass the buffer's number: with 0, Neovim 0.11 does not send the latest changes first.
    end, vim.api.nvim_get_current_buf())
  end
end

---@param bufnr integer
local function attach(bufnr)
  local running = client()
  if running then
    vim.lsp.buf_attach_client(bufnr, running.id)
  end
end

--- Switches completion on or off in this buffer, for its language, or everywhere.
---@param on boolean
local function switch(on)
  ---@param arguments string[]
  return function(arguments)
    local scope = arguments[1] or 'everywhere'
    local bufnr = vim.api.nvim_get_current_buf()
    if scope == 'buffer' then
      local attached = server.client(bufnr)
      if on and not attached then
        attach(bufnr)
      elseif not on and attached then
        vim.lsp.buf_detach_client(bufnr, attached.id)
      end
    elseif scope == 'language' then
      local language = vim.bo.filetype
      local off = vim.lsp.config.interline.settings.interline.disabledLanguages or {}
      off = vim.tbl_filter(function(other)
        return other ~= language
      end, off)
      if not on then
        table.insert(off, language)
      end
      server.configure({ disabledLanguages = off })
    elseif scope == 'everywhere' then
      server.configure({ enabled = on })
    else
      fail(('unknown scope %q, expected buffer, language or everywhere'):format(scope))
    end
  end
end

--- The result of a request, in one line.
---@param record table
---@return string
local function record_line(record)
  return ('%s  [%.0f ms; prompt: %d reused, %d computed; %d written]'):format(
    record.message,
    record.totalMs,
    record.reused,
    record.computed,
    record.generated
  )
end

---@class interline.Subcommand
---@field run fun(arguments: string[], command: table)
---@field complete? fun(lead: string): string[]

---@return string[]
local function scopes()
  return { 'buffer', 'language', 'everywhere' }
end

---@type table<string, interline.Subcommand>
local subcommands = {
  status = {
    run = function()
      execute('interline.why', { 1 }, function(records)
        local last = records[1] and record_line(records[1]) or 'nothing has been requested yet'
        local here = server.client(0) and '' or ' (not in this buffer)'
        local status = server.status()
        say(('Interline: %s%s\nlast request: %s'):format(status and status.message or '', here, last))
      end)
    end,
  },
  why = {
    run = function()
      execute('interline.why', { 10 }, function(records)
        if #records == 0 then
          say('Interline: nothing has been requested yet')
          return
        end
        say('The latest requests, newest first:\n' .. table.concat(vim.tbl_map(record_line, records), '\n'))
      end)
    end,
  },
  model = {
    run = function(arguments)
      local folder = arguments[1] and vim.fs.normalize(vim.fn.fnamemodify(arguments[1], ':p'))
      if not folder then
        say('Interline: ' .. (vim.lsp.config.interline.settings.interline.model or 'the default model'))
      elseif vim.fn.filereadable(vim.fs.joinpath(folder, 'model.toml')) == 0 then
        fail(('%s is not a model folder: it has no model.toml'):format(folder))
      else
        server.configure({ model = folder })
      end
    end,
    complete = function(lead)
      return vim.fn.getcompletion(lead, 'dir')
    end,
  },
  restart = { run = server.restart },
  enable = { run = switch(true), complete = scopes },
  disable = { run = switch(false), complete = scopes },
  log = {
    run = function()
      vim.cmd.tabedit({ vim.lsp.log.get_filename(), magic = { file = false } })
    end,
  },
}

--- Commands of the server that are not tasks.
local INTERNAL = { ['interline.accept'] = true, ['interline.why'] = true, ['interline.documentText'] = true }

--- The diagnostics in these lines, in the protocol's form.
---@param first integer
---@param last integer
local function diagnostics(first, last)
  local found = {}
  for _, diagnostic in ipairs(vim.diagnostic.get(0)) do
    if diagnostic.lnum >= first and diagnostic.lnum <= last then
      local start = { line = diagnostic.lnum, character = diagnostic.col }
      found[#found + 1] = { range = { start = start, ['end'] = start }, message = diagnostic.message }
    end
  end
  return found
end

--- Opens the text that a task has written in a new window, and shows the task's notes.
---@param answer { text: string?, languageId: string?, notes: string[] }?
local function show(answer)
  if type(answer) ~= 'table' then
    return
  end
  if answer.text then
    vim.cmd.new()
    vim.bo.buftype, vim.bo.bufhidden = 'nofile', 'wipe'
    vim.api.nvim_buf_set_lines(0, 0, -1, true, vim.split(answer.text, '\n', { plain = true, trimempty = true }))
    vim.bo.filetype = answer.languageId
  end
  for _, note in ipairs(answer.notes) do
    vim.notify('Interline: ' .. note, vim.log.levels.WARN)
  end
end

--- The tasks that the server announces, such as `translate`.
---@return table<string, interline.Subcommand>
local function tasks()
  local running = server.client()
  local provider = running and running.server_capabilities.executeCommandProvider or {}
  local found = {}
  for _, command in ipairs(provider.commands or {}) do
    local name = command:match('^interline%.(%w+)$')
    if name and not INTERNAL[command] then
      found[name] = {
        run = function(arguments, command_args)
          local selected = command_args.range > 0
          local cursor = vim.api.nvim_win_get_cursor(0)[1]
          local first = selected and command_args.line1 or cursor
          local last = selected and command_args.line2 or cursor
          local place = {
            uri = vim.uri_from_bufnr(0),
            -- Without a range, the cursor's line; each task decides what that means.
            range = {
              start = { line = first - 1, character = 0 },
              ['end'] = { line = selected and last or first - 1, character = 0 },
            },
            diagnostics = diagnostics(first - 1, last - 1),
          }
          execute(command, { place, unpack(arguments) }, show)
        end,
      }
    end
  end
  return found
end

---@return table<string, interline.Subcommand>
local function all()
  return vim.tbl_extend('force', tasks(), subcommands)
end

---@param command table As `nvim_create_user_command` passes it.
function M.run(command)
  local arguments = vim.deepcopy(command.fargs)
  local name = table.remove(arguments, 1) or 'status'
  local subcommand = all()[name]
  if not subcommand then
    local names = vim.tbl_keys(all())
    table.sort(names)
    fail(('unknown subcommand %q, expected one of %s'):format(name, table.concat(names, ', ')))
    return
  end
  subcommand.run(arguments, command)
end

---@param lead string
---@param line string
---@return string[]
function M.complete(lead, line)
  local name = line:match('Interline%s+(%S+)%s')
  local subcommand = name and all()[name]
  local found = subcommand and subcommand.complete and subcommand.complete(lead)
    or (not name and vim.tbl_keys(all()) or {})
  table.sort(found)
  return vim.tbl_filter(function(candidate)
    return vim.startswith(candidate, lead)
  end, found)
end

return M
