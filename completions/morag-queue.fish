# Completion of morag-queue in fish. Load it with: morag-queue completion fish | source
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
