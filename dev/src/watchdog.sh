# Stops what is recorded in the state folder $1, newest first. With $2 = remove the folder is deleted afterwards.
#
# Standard input is a pipe from the process that started the servers: it closes however that process ends. Standard output
# is that process's lock on the folder, so that no other process uses the folder before this script is done.
folder=$1
while read -r _; do :; done

# The command line of a process, empty once it has ended.
command_of() {
  if [ -d /proc/self ]; then tr '\0' ' ' <"/proc/$1/cmdline"; else ps -ww -o command= -p "$1"; fi
}

# The system reuses process ids: it is ours only while its command line still contains our mark.
is_ours() {
  case $(command_of "$1") in *"$2"*) return 0 ;; esac
  return 1
}

newest_first=
while read -r pid signal mark; do
  kill -0 "$pid" || kill -0 "-$pid" || continue
  newest_first="$pid $signal $mark
$newest_first"
done <"$folder/processes"

printf '%s' "$newest_first" | while read -r pid signal mark; do
  if is_ours "$pid" "$mark"; then
    kill -CONT "-$pid"
    kill "-$signal" "$pid"
    polls_left=300
    while is_ours "$pid" "$mark" && [ "$polls_left" -gt 0 ]; do
      sleep 0.1
      polls_left=$((polls_left - 1))
    done
  elif [ -n "$(command_of "$pid")" ]; then
    continue
  fi
  # The rest of its group, or all of it when it did not stop in time.
  kill -KILL "-$pid"
done
rm -f "$folder/processes"
if [ "$2" = remove ]; then rm -rf "$folder"; fi
