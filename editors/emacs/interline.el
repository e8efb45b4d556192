;;; interline.el --- Interline in Emacs 30, without other packages  -*- lexical-binding: t; -*-

(require 'eglot)

;; Eglot runs one server in a buffer, so in these modes Interline replaces the language's own
;; server. Eglot derives the language's name from the mode, unless `:language-id' gives it.
(defvar interline-modes
  '((python-mode) (python-ts-mode)
    (rust-ts-mode) (go-ts-mode)
    (js-mode :language-id "javascript") (js-ts-mode :language-id "javascript")
    (typescript-ts-mode) (tsx-ts-mode :language-id "typescriptreact")
    (c-mode) (c-ts-mode) (c++-mode :language-id "cpp") (c++-ts-mode :language-id "cpp")
    (java-mode) (java-ts-mode) (ruby-mode) (ruby-ts-mode)
    (sh-mode :language-id "shellscript") (bash-ts-mode :language-id "shellscript")))

(defvar interline-options nil
  "The server's settings, such as `(:maxNewTokens 32)'.")

(defun interline-start ()
  "Show completions as ghost text, also after a space or a bracket.  TAB accepts them."
  (setq-local completion-preview-minimum-symbol-length nil)
  (completion-preview-mode)
  (eglot-ensure))

(add-to-list 'eglot-server-programs
             `(,interline-modes . ("interline" :initializationOptions ,interline-options)))
(dolist (mode interline-modes)
  (add-hook (intern (format "%s-hook" (car mode))) #'interline-start))
