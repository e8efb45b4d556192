--- `:Interline` and its subcommands.

local execute = require('interline.execute')
local models = require('interline.models')
local server = require('interline.server')

local M = {}

---@param bufnr integer
local function attach(bufnr)
  local running = execute.client()
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
      local off = server.setting('disabledLanguages') or {}
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
      execute.fail(('unknown scope %q, expected buffer, language or everywhere'):format(scope))
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
      execute.run('interline.why', { 1 }, function(records)
        local last = records[1] and record_line(records[1]) or 'nothing has been requested yet'
        local here = server.client(0) and '' or ' (not in this buffer)'
        local status = server.status()
        execute.say(('Interline: %s%s\nlast request: %s'):format(status and status.message or '', here, last))
      end)
    end,
  },
  why = {
    run = function()
      execute.run('interline.why', { 10 }, function(records)
        if #records == 0 then
          execute.say('Interline: nothing has been requested yet')
          return
        end
        execute.say('The latest requests, newest first:\n' .. table.concat(vim.tbl_map(record_line, records), '\n'))
      end)
    end,
  },
  models = { run = models.select },
  model = {
    run = function(arguments)
      if arguments[1] then
        models.choose(arguments[1])
        return
      end
      models.list(function(all)
        for _, model in ipairs(all) do
          if model.inUse then
            execute.say('Interline: ' .. models.line(model))
            return
          end
        end
        execute.say('Interline: ' .. (server.setting('model') or 'there is no model in use'))
      end)
    end,
    complete = function(lead)
      local found = vim.tbl_map(function(model)
        return model.name
      end, models.now())
      -- Only what looks like a path, as most projects have folders.
      return lead:find('^[~./]') and vim.fn.getcompletion(lead, 'dir') or found
    end,
  },
  cancel = {
    run = function()
      execute.say(execute.cancel() and 'Interline: cancelled' or 'Interline: there is nothing to cancel')
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
local INTERNAL = {
  ['interline.accept'] = true,
  ['interline.why'] = true,
  ['interline.documentText'] = true,
  ['interline.models'] = true,
  ['interline.pullModel'] = true,
  ['interline.useModel'] = true,
}

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
          execute.run(command, { place, unpack(arguments) }, show)
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
    execute.fail(('unknown subcommand %q, expected one of %s'):format(name, table.concat(names, ', ')))
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
