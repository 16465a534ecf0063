#compdef freearea
# freearea(1) completion for zsh. The program itself knows what may follow.
local -a before candidates
before=("${(@)words[2,CURRENT-1]}")
[[ ${words[CURRENT]} != -* ]] || before+=("${words[CURRENT]}")
candidates=("${(@f)$(freearea "${before[@]}" --generate-bash-completion 2>/dev/null)}")
if [[ -n ${candidates[1]} ]]; then
    _describe freearea candidates
fi
_files
