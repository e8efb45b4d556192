--- `:checkhealth interline`

local health = vim.health
local models = require('interline.models')
local server = require('interline.server')

local M = {}

function M.check()
  health.start('interline: server')
  local problem = server.problem()
  if problem then
    health.error(problem)
    return
  end
  local cmd = vim.lsp.config.interline.cmd
  if type(cmd) ~= 'table' then
    health.info('`cmd` is a function, so the executable is not checked')
  else
    local version = vim.system({ cmd[1], '--version' }):wait(10000)
    if version.code ~= 0 then
      health.error(('`%s --version` failed: %s'):format(cmd[1], vim.trim(version.stderr or '')))
      return
    end
    health.ok(('%s (%s)'):format(vim.trim(version.stdout), vim.fn.exepath(cmd[1])))
    local arguments = vim.list_extend({ cmd[1], 'doctor' }, vim.list_slice(cmd, 2))
    local model = server.setting('model')
    if model then
      vim.list_extend(arguments, { '--model', model })
    end
    local doctor = vim.system(arguments, { text = true }):wait(120000)
    for line in vim.gsplit(vim.trim(doctor.stdout or ''), '\n') do
      local good, finding = line:match('^(%u*%l*)%s+(.*)$')
      if good == 'ok' then
        health.ok(finding)
      else
        health.error(finding or line)
      end
    end
    if doctor.code ~= 0 and doctor.code ~= 1 then
      health.error('`interline doctor` failed: ' .. vim.trim(doctor.stderr or ''))
    end
  end

  health.start('interline: editor')
  local client = server.client()
  local status = server.status()
  if client and status then
    local report = status.kind == 'Error' and health.error or health.ok
    report('the server is running: ' .. status.message)
    health.info('the position encoding is ' .. client.offset_encoding)
  else
    health.info('the server is not running; it starts with the first file')
  end
  for _, model in ipairs(models.now()) do
    if model.here or model.recommended then
      local get = model.here and '' or (', `:Interline model %s` gets it'):format(model.name)
      health.info('the model ' .. models.line(model) .. get)
    end
  end
  for _, key in ipairs(require('interline.keymaps').keys) do
    if client and not require('interline.keymaps').is_set(key) then
      health.info(('no key is mapped to <Plug>(interline-%s), see |interline-keys|'):format(key.name))
    end
  end
end

return M
