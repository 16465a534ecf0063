# freearea(1) completion for bash. The program itself knows what may follow.
_freearea() {
    local cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    case $cur in -*) words+=("$cur") ;; esac
    mapfile -t COMPREPLY < <(compgen -W "$(freearea "${words[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur")
}
complete -o bashdefault -o default -F _freearea freearea
