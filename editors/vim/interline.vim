" Interline in Vim 9, with ALE. With Debian's vim-ale, source this file before ALE is loaded.
let g:ale_completion_enabled = 1
packadd! ale

" ALE inserts an item only up to its first `(`, and turns a line break in it into a NUL. So ALE gets
" only the first line, inserts the beginning of it, and this file adds the rest once it is accepted.
function! s:Show(buffer, item) abort
  let l:line = getline('.')
  let l:before = strpart(l:line, 0, col('.') - 1)
  " ALE counts bytes where the protocol counts UTF-16 units. At the end of a line that does no
  " harm, because the server clamps the position to the line. Before other text it is wrong.
  if l:before =~# '[^\x00-\x7F]' && l:before isnot# l:line
    return 0
  endif
  let b:interline = {'text': a:item.textEdit.newText, 'command': a:item.command}
  let a:item.textEdit.newText = a:item.label
  if a:item.label =~# '('
    let a:item.detail .= ': ' . a:item.label
  endif
  let b:interline.menu = a:item.detail
  return 1
endfunction

function! s:Taken(word, menu) abort
  let l:taken = get(b:, 'interline', {})
  if empty(a:word) || empty(l:taken) || l:taken.menu isnot# a:menu || stridx(l:taken.text, a:word) != 0
    return
  endif
  unlet b:interline
  let l:rest = split(strpart(l:taken.text, len(a:word)), "\n", 1)
  let l:before = strpart(getline('.'), 0, col('.') - 1)
  let l:after = strpart(getline('.'), col('.') - 1)
  let l:rest[0] = l:before . l:rest[0]
  let l:end = [line('.') + len(l:rest) - 1, len(l:rest[-1]) + 1]
  let l:rest[-1] .= l:after
  call setline('.', l:rest[0])
  call append('.', l:rest[1:])
  call cursor(l:end)
  call ale#lsp_linter#SendRequest(bufnr(''), 'interline', [0, 'workspace/executeCommand', l:taken.command])
endfunction

augroup interline
  autocmd!
  autocmd CompleteDone * call s:Taken(get(v:completed_item, 'word', ''), get(v:completed_item, 'menu', ''))
augroup END

" The server's settings, such as `{'maxNewTokens': 32}`.
let g:ale_interline_options = get(g:, 'ale_interline_options', {})

" In most languages, ALE chooses which linters to run. Naming Interline in `g:ale_linters` replaces
" that choice. To run other linters too, add them there before you source this file.
let g:ale_linters = get(g:, 'ale_linters', {})
for s:filetype in ['c', 'cpp', 'go', 'java', 'javascript', 'python', 'ruby', 'rust', 'sh', 'typescript']
  let g:ale_linters[s:filetype] = get(g:ale_linters, s:filetype, []) + ['interline']
  call ale#linter#Define(s:filetype, {
  \ 'name': 'interline',
  \ 'lsp': 'stdio',
  \ 'executable': 'interline',
  \ 'command': '%e',
  \ 'initialization_options': {buffer -> ale#Var(buffer, 'interline_options')},
  \ 'project_root': {buffer -> expand('#' . buffer . ':p:h')},
  \ 'completion_filter': function('s:Show'),
  \})
endfor
