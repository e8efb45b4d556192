--- Ghost text: requested at every change in insert mode, and drawn after the cursor.
---
--- An item is shown and can be accepted only while it fits the buffer: the text from its start to
--- the cursor is the beginning of the item, and the text after the cursor has not changed. The text
--- to insert is cut from the item at the moment it is accepted, so a late answer cannot duplicate or
--- garble text. Neovim's own `vim.lsp.inline_completion` has neither rule.

local offer = require('interline.offer')
local server = require('interline.server')

local api = vim.api

local M = {}

local METHOD = 'textDocument/inlineCompletion'
local AUTOMATIC, INVOKED = 2, 1
local namespace = api.nvim_create_namespace('interline')

---@class interline.Candidate
---@field item lsp.InlineCompletionItem
---@field text string The text from `start`, with lines separated by `\n`.
---@field gone integer UTF-16 units of the item before `text`: the lines that were accepted already.
---@field shown boolean

---@class interline.Ghost
---@field bufnr integer
---@field row integer The line of the start and the cursor, from 0.
---@field start integer Where the candidates begin, in bytes of the line.
---@field tail string The text after the cursor in the line.
---@field candidates interline.Candidate[]
---@field index integer
---@field invoked boolean Whether it was invoked by the user.

---@type interline.Ghost?
local ghost
--- The open request.
---@type { client: vim.lsp.Client, id: integer }?
local pending
--- The place of the last request, because one change causes several events.
---@type string?
local asked

---@return integer row, integer col Both from 0; `col` in bytes.
local function cursor()
  local position = api.nvim_win_get_cursor(0)
  return position[1] - 1, position[2]
end

---@return boolean
local function inserting()
  return api.nvim_get_mode().mode:sub(1, 1) == 'i'
end

--- Whether an item of the menu is selected.
---@return boolean
local function menu_has_selection()
  return vim.fn.pumvisible() == 1 and vim.fn.complete_info({ 'selected' }).selected >= 0
end

local function cancel()
  if pending then
    pending.client:cancel_request(pending.id)
    pending = nil
  end
end

local function hide()
  if ghost and api.nvim_buf_is_valid(ghost.bufnr) then
    api.nvim_buf_clear_namespace(ghost.bufnr, namespace, 0, -1)
  end
end

local function drop()
  hide()
  ghost = nil
end

--- The part of the candidates that the user has typed, if the ghost text still fits the buffer.
---@return string?
local function typed()
  if not ghost or ghost.bufnr ~= api.nvim_get_current_buf() or not inserting() then
    return
  end
  -- With 'virtualedit', the cursor can be beyond the text, where an insertion would look different.
  if not vim.bo.modifiable or vim.fn.getpos('.')[4] > 0 then
    return
  end
  local row, col = cursor()
  local line = api.nvim_get_current_line()
  if row == ghost.row and col >= ghost.start and line:sub(col + 1) == ghost.tail then
    return line:sub(ghost.start + 1, col)
  end
end

--- Drops the candidates that do not continue the typed text, and returns the rest of the current one.
---@return string?
local function rest()
  local prefix = typed()
  if not ghost or not prefix or menu_has_selection() then
    return
  end
  local current = ghost.candidates[ghost.index]
  ghost.candidates = vim.tbl_filter(function(candidate)
    return vim.startswith(candidate.text, prefix) and #candidate.text > #prefix
  end, ghost.candidates)
  ghost.index = 1
  for index, candidate in ipairs(ghost.candidates) do
    if candidate == current then
      ghost.index = index
    end
  end
  local candidate = ghost.candidates[ghost.index]
  return candidate and candidate.text:sub(#prefix + 1)
end

--- Draws the rest of the current candidate, or drops the ghost text if no candidate fits.
local function draw()
  hide()
  local text = rest()
  if not ghost or not text then
    -- Keep it while an item of the menu is selected, which is temporary.
    if not menu_has_selection() then
      ghost = nil
    end
    return
  end
  local lines = vim.split(text, '\n', { plain = true })
  local first = { { lines[1], 'InterlineGhost' } }
  if ghost.invoked and #ghost.candidates > 1 then
    table.insert(first, { (' (%d/%d)'):format(ghost.index, #ghost.candidates), 'InterlineCount' })
  end
  local below = vim.tbl_map(function(line)
    return { { line, 'InterlineGhost' } }
  end, vim.list_slice(lines, 2))
  local row, col = cursor()
  api.nvim_buf_set_extmark(ghost.bufnr, namespace, row, col, {
    virt_text = first,
    virt_text_pos = 'inline',
    virt_lines = #below > 0 and below or nil,
    hl_mode = 'combine',
  })

  local candidate = ghost.candidates[ghost.index]
  local client = server.client(ghost.bufnr)
  if client and not candidate.shown then
    candidate.shown = true
    client:notify('textDocument/didShowCompletion', { item = candidate.item })
    offer.shown(ghost.bufnr, row)
  end
end

--- Turns an item into a candidate, if it ends at the cursor and starts in the same line.
---@param item lsp.InlineCompletionItem
---@param position lsp.Position
---@return interline.Candidate?
local function candidate(item, position)
  local range = item.range
  local fits = not range
    or (vim.deep_equal(range['end'], position) and range.start.line == position.line)
  if fits and type(item.insertText) == 'string' then
    local text = item.insertText:gsub('\r\n?', '\n')
    return { item = item, text = text, gone = 0, shown = false }
  end
end

---@param client vim.lsp.Client
---@param kind integer
---@param index integer The candidate to show first.
local function request(client, kind, index)
  cancel()
  local bufnr = api.nvim_get_current_buf()
  local row, col = cursor()
  local line = api.nvim_get_current_line()
  local position = vim.lsp.util.make_position_params(0, client.offset_encoding).position
  local params = {
    textDocument = vim.lsp.util.make_text_document_params(bufnr),
    position = position,
    context = { triggerKind = kind },
  }
  local id
  local function answer(_, result)
    if not pending or pending.id ~= id then
      return
    end
    pending = nil
    -- `null` and a failed request, which is logged, say nothing: keep the current ghost text.
    if not result or result == vim.NIL then
      return
    end
    drop()
    local candidates = {}
    for _, item in ipairs(result.items or result) do
      table.insert(candidates, candidate(item, position))
    end
    if #candidates == 0 then
      return
    end
    local range = candidates[1].item.range
    local start = range
      and vim.str_byteindex(line, client.offset_encoding, range.start.character, false)
    ghost = {
      bufnr = bufnr,
      row = row,
      start = start or col,
      tail = line:sub(col + 1),
      candidates = candidates,
      index = math.min(index, #candidates),
      invoked = kind == INVOKED,
    }
    draw()
  end
  local sent
  sent, id = client:request(METHOD, params, answer, bufnr)
  pending = sent and { client = client, id = id } or nil
end

--- Handles a change or a cursor movement.
---@param bufnr integer
local function update(bufnr)
  local client = server.client(bufnr)
  if not client or not inserting() then
    return
  end
  draw()
  local row, col = cursor()
  local place = ('%d:%d:%d:%d'):format(bufnr, api.nvim_buf_get_changedtick(bufnr), row, col)
  -- Invoked ghost text stays as long as it fits.
  local keep = ghost and ghost.invoked
  if place == asked or keep or menu_has_selection() or vim.fn.reg_executing() ~= '' then
    return
  end
  asked = place
  request(client, AUTOMATIC, 1)
end

--- The parts of the text that can be accepted. A word is whitespace and then a run of keyword
--- characters or of other characters. A line goes to its end; at the end of a line, it is the line
--- break and the next line.
local parts = {
  all = function(text)
    return text
  end,
  word = function(text)
    return vim.fn.matchstr(text, [=[\v^\_s*(\k+|[^[:keyword:][:space:]]+)?]=])
  end,
  line = function(text)
    return text:match('^\n?[^\n]*')
  end,
}

---@param part 'all'|'word'|'line'
---@return boolean
function M.accept(part)
  local text = rest()
  local prefix = typed()
  local client = ghost and server.client(ghost.bufnr)
  if not ghost or not text or not prefix or not client then
    return false
  end
  hide()
  local taken = parts[part](text)
  local lines = vim.split(taken, '\n', { plain = true })
  local row, col = cursor()
  -- Start a new undo block, so that one undo removes exactly this text.
  vim.cmd('let &g:undolevels = &g:undolevels')
  api.nvim_buf_set_text(ghost.bufnr, row, col, row, col, lines)
  local end_col = (#lines == 1 and col or 0) + #lines[#lines]
  api.nvim_win_set_cursor(0, { row + #lines, end_col })

  local current = ghost.candidates[ghost.index]
  if taken == text then
    ghost = nil
    if current.item.command then
      client:exec_cmd(current.item.command, { bufnr = api.nvim_get_current_buf() })
    end
    return true
  end
  local inserted = prefix .. taken
  client:notify('textDocument/didPartiallyAcceptCompletion', {
    item = current.item,
    acceptedLength = current.gone + vim.str_utfindex(inserted, 'utf-16'),
  })
  if #lines > 1 then
    -- The candidate now starts at the beginning of the last accepted line.
    local before = inserted:sub(1, #inserted - #lines[#lines])
    current.gone = current.gone + vim.str_utfindex(before, 'utf-16')
    current.text = current.text:sub(#before + 1)
    ghost.candidates, ghost.index = { current }, 1
    ghost.row, ghost.start = row + #lines - 1, 0
  end
  draw()
  return true
end

---@return boolean
function M.visible()
  return rest() ~= nil
end

---@param step integer
function M.cycle(step)
  if rest() and ghost and #ghost.candidates > 1 then
    ghost.index = (ghost.index - 1 + step) % #ghost.candidates + 1
    draw()
    return
  end
  M.trigger(2)
end

---@param index? integer The candidate to show first.
function M.trigger(index)
  local client = server.client(api.nvim_get_current_buf())
  if client and inserting() then
    request(client, INVOKED, index or 1)
  end
end

---@return boolean
function M.dismiss()
  local shown = rest() ~= nil
  cancel()
  drop()
  return shown
end

--- Shows ghost text in a buffer that the server is attached to.
---@param bufnr integer
function M.attach(bufnr)
  local group = api.nvim_create_augroup('interline.ghost.' .. bufnr, {})
  -- At once, before the screen is drawn.
  api.nvim_create_autocmd({ 'TextChangedI', 'TextChangedP', 'CursorMovedI' }, {
    group = group,
    buffer = bufnr,
    callback = function()
      update(bufnr)
    end,
  })
  -- Scheduled: at these events the mode is not yet insert mode, or the menu is not up to date.
  api.nvim_create_autocmd({ 'InsertEnter', 'CompleteChanged', 'CompleteDone' }, {
    group = group,
    buffer = bufnr,
    callback = vim.schedule_wrap(function()
      if api.nvim_get_current_buf() == bufnr then
        update(bufnr)
      end
    end),
  })
  api.nvim_create_autocmd({ 'InsertLeave', 'InsertChange', 'BufLeave', 'WinLeave' }, {
    group = group,
    buffer = bufnr,
    callback = function()
      M.dismiss()
      asked = nil
    end,
  })
end

---@param bufnr integer
function M.detach(bufnr)
  pcall(api.nvim_del_augroup_by_name, 'interline.ghost.' .. bufnr)
  if ghost and ghost.bufnr == bufnr then
    M.dismiss()
  end
end

return M
