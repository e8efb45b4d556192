if vim.g.loaded_interline then
  return
end
vim.g.loaded_interline = true

if vim.fn.has('nvim-0.11') == 0 then
  vim.notify('Interline needs Neovim 0.11 or newer', vim.log.levels.ERROR)
  return
end

local group = vim.api.nvim_create_augroup('interline', {})

vim.api.nvim_create_autocmd('FileType', {
  group = group,
  callback = function(event)
    if vim.bo[event.buf].buftype == '' and vim.lsp.is_enabled('interline') then
      require('interline.server').report_missing()
    end
  end,
})

vim.api.nvim_create_autocmd('LspAttach', {
  group = group,
  callback = function(event)
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if client and client.name == 'interline' then
      require('interline.keymaps').set()
      require('interline.ghost').attach(event.buf)
      require('interline.server').focus(client, event.buf)
    end
  end,
})

vim.api.nvim_create_autocmd('BufEnter', {
  group = group,
  callback = function(event)
    local client = vim.lsp.get_clients({ name = 'interline', bufnr = event.buf })[1]
    if client then
      require('interline.server').focus(client, event.buf)
    end
  end,
})

vim.api.nvim_create_autocmd('LspDetach', {
  group = group,
  callback = function(event)
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if client and client.name == 'interline' then
      require('interline.ghost').detach(event.buf)
    end
  end,
})

vim.api.nvim_create_autocmd('LspProgress', {
  group = group,
  callback = function(event)
    local client = vim.lsp.get_client_by_id(event.data.client_id)
    if client and client.name == 'interline' then
      require('interline.execute').hear(event.data.params)
    end
  end,
})

vim.api.nvim_create_autocmd('InsertLeave', {
  group = group,
  callback = function()
    if package.loaded['interline.offer'] then
      require('interline.offer').pause()
    end
  end,
})

vim.api.nvim_create_user_command('Interline', function(command)
  require('interline.command').run(command)
end, {
  nargs = '*',
  range = true,
  desc = 'Interline: status, why, models, restart, …',
  complete = function(lead, line)
    return require('interline.command').complete(lead, line)
  end,
})

vim.lsp.enable('interline')
