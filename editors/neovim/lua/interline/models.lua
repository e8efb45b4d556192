--- The models: a list to choose from, pulling one, and switching to it.

local execute = require('interline.execute')
local server = require('interline.server')

local M = {}

--- An element of the answer to `interline.models`.
---@class interline.Model
---@field name string
---@field about string
---@field license string
---@field sizeBytes integer Of its file, or of its folder if it is here.
---@field memoryBytes integer? What it needs to run, if that is known.
---@field score string? What it scores, in words.
---@field here boolean
---@field inUse boolean
---@field recommended boolean

---@param bytes integer
---@return string
local function megabytes(bytes)
  return ('%d MB'):format(math.floor(bytes / 1e6 + 0.5))
end

--- A model in one line: its name, what it costs and what it gives.
---@param model interline.Model
---@return string
function M.line(model)
  local place = model.inUse and 'in use' or model.here and 'here' or 'not here'
  local parts = { place .. (model.recommended and ', recommended' or ''), megabytes(model.sizeBytes) }
  if model.memoryBytes and model.memoryBytes ~= vim.NIL then
    table.insert(parts, megabytes(model.memoryBytes) .. ' of memory')
  end
  table.insert(parts, model.license)
  if model.score and model.score ~= vim.NIL then
    table.insert(parts, model.score)
  end
  return ('%s (%s)'):format(model.name, table.concat(parts, ', '))
end

--- Asks for the models that the server knows, beginning with the one that comes with it, and for those that the
--- user has.
---@param answer fun(models: interline.Model[])
function M.list(answer)
  execute.run('interline.models', {}, answer)
end

--- The same, at once; none if there is no answer within a second.
---@return interline.Model[]
function M.now()
  local client = server.client()
  local params = { command = 'interline.models', arguments = {} }
  local response = client and client:request_sync('workspace/executeCommand', params, 1000, 0)
  return response and response.result or {}
end

--- Switches to a model, for all editors of this user. Where the setting names a model, which goes first, that is
--- changed instead, until Neovim exits.
---@param name string
local function use(name)
  if server.setting('model') then
    server.configure({ model = name })
    return
  end
  execute.run('interline.useModel', { name }, function()
    execute.say('Interline: ' .. name .. ' is in use')
  end)
end

--- Pulls a model, and switches to it. The command line shows the progress while nothing is typed.
---@param name string A name from the list, or `OWNER/REPO[:FILE]` of a Hub.
local function pull(name)
  execute.run('interline.pullModel', { name }, function(result)
    use(result.name)
  end, function(report)
    if report.message and vim.api.nvim_get_mode().mode == 'n' then
      -- A longer line would wait for a key.
      local line = ('Interline: %s, %s'):format(name, report.message)
      execute.say(vim.fn.strcharpart(line, 0, vim.v.echospace))
    end
  end)
end

--- Uses a folder outside the store, until Neovim exits.
---@param folder string
local function use_folder(folder)
  for name in vim.fs.dir(folder) do
    if name == 'onnx' or name:match('%.onnx$') then
      return server.configure({ model = folder })
    end
  end
  execute.fail(('%s has no ONNX graph; `interline model add` imports other models'):format(folder))
end

--- Switches to what the user has named: a model, which is pulled first if it is not here, or a folder. A
--- name goes first, so that a folder in a project cannot take a model's place.
---@param named string
function M.choose(named)
  M.list(function(models)
    for _, model in ipairs(models) do
      if model.name == named then
        return (model.here and use or pull)(named)
      end
    end
    local folder = vim.fs.normalize(vim.fn.fnamemodify(named, ':p'))
    if vim.fn.isdirectory(folder) == 1 then
      use_folder(folder)
    else
      pull(named)
    end
  end)
end

--- Lets the user choose from the list.
function M.select()
  M.list(function(models)
    local options = { prompt = 'Interline: models; one that is not here is downloaded', format_item = M.line }
    vim.ui.select(models, options, function(model)
      if model and not model.inUse then
        M.choose(model.name)
      end
    end)
  end)
end

return M
