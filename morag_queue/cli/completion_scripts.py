"""The completion scripts. They ask the installed command, so they do not change when verbs do.

Typer's scripts are not used: their bash script breaks words at a colon, and each answer imports typer and Rich (0.4 s).
"""

BASH = r"""# Completion of morag-queue in bash 4.4 or later. Load it with: source <(morag-queue completion bash)
_morag_queue() {
    local rows
    mapfile -t rows < <(_MORAG_QUEUE_COMPLETE=bash "$1" "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    COMPREPLY=("${rows[@]:1}")
    if [[ ${rows[0]} == files ]]; then
        compopt -o default
    fi
}
complete -o nosort -F _morag_queue morag-queue
"""

ZSH = r"""#compdef morag-queue
# Completion of morag-queue in zsh. Load it after compinit with: source <(morag-queue completion zsh)
_morag_queue() {
    local -a rows offers
    rows=("${(@f)$(_MORAG_QUEUE_COMPLETE=zsh ${(Q)words[1]} "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    if [[ $rows[1] == files ]]; then
        [[ $PREFIX == --*=* ]] && compset -P '*='
        _files
        return
    fi
    local row
    for row in "${(@)rows[2,-1]}"; do
        offers+=("${${row%%$'\t'*}//:/\\:}:${row#*$'\t'}")
    done
    _describe -V 'morag-queue' offers -U
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _morag_queue "$@"
else
    compdef _morag_queue morag-queue
fi
"""

FISH = r"""# Completion of morag-queue in fish. Load it with: morag-queue completion fish | source
function __morag_queue_complete
    set -l words (commandline -opc)
    set -l unfinished (commandline -ct)
    set -l rows (_MORAG_QUEUE_COMPLETE=fish $words[1] $words[2..-1] $unfinished 2>/dev/null)
    if test "$rows[1]" = files
        set -l option (string match -r -- '^--[^=]*=' $unfinished)
        __fish_complete_path (string replace -r -- '^--[^=]*=' '' $unfinished) | string replace -r -- '^' "$option"
    else
        printf '%s\n' $rows[2..-1]
    end
end
complete --command morag-queue --no-files --keep-order --arguments '(__morag_queue_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
