-- The configuration of the language server; `vim.lsp.config('interline', {...})` overrides it.
local server = require('interline.server')

---@type vim.lsp.Config
return {
  cmd = { server.executable() },
  root_dir = function(bufnr, on_dir)
    -- Not for buffers without a name, nor for those of other plugins: `fugitive://`, `oil://`.
    local name = vim.api.nvim_buf_get_name(bufnr)
    if name ~= '' and not name:match('^%a[%w+.-]+://') and server.may_start() then
      on_dir(vim.fs.root(bufnr, '.git'))
    end
  end,
  -- One server, and one model in memory, for all projects.
  reuse_client = function(client, config)
    return client.name == config.name and not client:is_stopped()
  end,
  before_init = server.before_init,
  on_init = server.on_init,
  on_exit = server.on_exit,
  handlers = { didChangeStatus = server.did_change_status },
  -- `{ interline = { maxNewTokens = 32 } }`, see |interline-settings|.
  settings = { interline = vim.empty_dict() },
}
