--- The keys in insert mode, and the colours of ghost text.

local interline = require('interline')

local M = {}

---@class interline.Key
---@field name string Its `<Plug>` mapping is `<Plug>(interline-…)`.
---@field lhs string The key to map, unless it is mapped already.
---@field action fun(): boolean? Returns `false` if the key should do what it does without Interline.

---@type interline.Key[]
M.keys = {
  { name = 'accept', lhs = '<Tab>', action = interline.accept },
  {
    name = 'accept-word',
    lhs = '<M-Right>',
    action = function()
      return interline.accept('word')
    end,
  },
  {
    name = 'accept-line',
    lhs = '<M-C-Right>',
    action = function()
      return interline.accept('line')
    end,
  },
  { name = 'dismiss', lhs = '<C-]>', action = interline.dismiss },
  { name = 'next', lhs = '<M-]>', action = interline.cycle },
  {
    name = 'previous',
    lhs = '<M-[>',
    action = function()
      interline.cycle(-1)
    end,
  },
  { name = 'trigger', lhs = '<M-Bslash>', action = interline.trigger },
}

--- Whether any key is mapped to this action.
---@param key interline.Key
---@return boolean
function M.is_set(key)
  return vim.fn.hasmapto(('<Plug>(interline-%s)'):format(key.name), 'i') == 1
end

---@param key interline.Key
local function map(key)
  local plug = ('<Plug>(interline-%s)'):format(key.name)
  local desc = 'Interline: ' .. key.name:gsub('%-', ' ')
  vim.keymap.set('i', plug, function()
    if key.action() ~= false then
      return
    end
    -- Neovim's own mapping of the key.
    if key.lhs == '<Tab>' and vim.snippet.active({ direction = 1 }) then
      vim.snippet.jump(1)
      return
    end
    local typed = vim.api.nvim_replace_termcodes(key.lhs, true, true, true)
    -- Inserted before any keys typed since, and without remapping.
    vim.api.nvim_feedkeys(typed, 'in', false)
  end, { desc = desc })

  if vim.g.interline_keymaps == false or M.is_set(key) then
    return
  end
  local taken = vim.fn.maparg(key.lhs, 'i', false, true)
  if vim.tbl_isempty(taken) or vim.startswith(taken.desc or '', 'vim.snippet.jump') then
    vim.keymap.set('i', key.lhs, plug, { remap = true, desc = desc })
  end
end

local done = false

--- Sets the keys and colours, once, when the server is first attached.
function M.set()
  if done then
    return
  end
  done = true
  local hint = vim.fn.hlexists('ComplHint') == 1 and 'ComplHint' or 'NonText'
  vim.api.nvim_set_hl(0, 'InterlineGhost', { link = hint, default = true })
  vim.api.nvim_set_hl(0, 'InterlineCount', { link = 'MoreMsg', default = true })
  vim.iter(M.keys):each(map)
end

return M
