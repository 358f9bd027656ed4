# Completion of morag-queue in bash 4.4 or later. Load it with: source <(morag-queue completion bash)
_morag_queue() {
    local rows
    mapfile -t rows < <(_MORAG_QUEUE_COMPLETE=bash "$1" "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null)
    COMPREPLY=("${rows[@]:1}")
    if [[ ${rows[0]} == files ]]; then
        compopt -o default
    fi
}
complete -o nosort -F _morag_queue morag-queue
