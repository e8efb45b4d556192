--- The keys of insert mode, and the colours of ghost text.

local M = {}

---@param name string The `<Plug>` mapping, without its brackets.
---@param lhs string The key it gets, unless the key is taken.
---@param desc string
---@param action fun(): boolean? Answers `false` if the key shall do what it does without Interline.
local function map(name, lhs, desc, action)
  local plug = '<Plug>(' .. name .. ')'
  vim.keymap.set('i', plug, function()
    if action() ~= false then
      return
    end
    if lhs == '<Tab>' and vim.snippet.active({ direction = 1 }) then
      vim.snippet.jump(1)
      return
    end
    local key = vim.api.nvim_replace_termcodes(lhs, true, true, true)
    -- Before what was typed since, and without mappings.
    vim.api.nvim_feedkeys(key, 'in', false)
  end, { desc = 'Interline: ' .. desc })

  if vim.g.interline_keymaps == false or vim.fn.hasmapto(plug, 'i') == 1 then
    return
  end
  local taken = vim.fn.maparg(lhs, 'i', false, true)
  local default = vim.startswith(taken.desc or '', 'vim.snippet.jump')
  if vim.tbl_isempty(taken) or default then
    vim.keymap.set('i', lhs, plug, { remap = true, desc = 'Interline: ' .. desc })
  end
end

local done = false

--- Once, when the server is first of use.
function M.set()
  if done then
    return
  end
  done = true
  local hint = vim.fn.hlexists('ComplHint') == 1 and 'ComplHint' or 'NonText'
  vim.api.nvim_set_hl(0, 'InterlineGhost', { link = hint, default = true })
  vim.api.nvim_set_hl(0, 'InterlineCount', { link = 'MoreMsg', default = true })

  local interline = require('interline')
  map('interline-accept', '<Tab>', 'accept', interline.accept)
  map('interline-accept-word', '<M-Right>', 'accept a word', function()
    return interline.accept('word')
  end)
  map('interline-accept-line', '<M-C-Right>', 'accept a line', function()
    return interline.accept('line')
  end)
  map('interline-dismiss', '<C-]>', 'dismiss', interline.dismiss)
  map('interline-next', '<M-]>', 'next candidate', function()
    interline.cycle(1)
  end)
  map('interline-previous', '<M-[>', 'previous candidate', function()
    interline.cycle(-1)
  end)
  map('interline-trigger', '<M-Bslash>', 'ask for candidates', interline.trigger)
end

return M
