_morag_queue_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _MORAG_QUEUE_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _morag_queue_completion morag-queue
