#!/bin/sh
# Prints every event once, a line of JSON each. The broker keeps a session under
# the client's id, so nothing is missed while this program is away. What was
# published twice is known by the id in its correlation data.
#
#   subscribe.sh -h broker.example -p 8883 --cafile broker-ca.pem -u till -P PASSWORD
#
# The arguments are mosquitto_sub's. A program that must not act twice keeps
# the ids that it has seen on disk, with what it did about them; this one
# remembers them while it runs.
mosquitto_sub -V 5 -q 1 -c -x 86400 -i till -t '#' -F '%D %p' "$@" |
    awk '!seen[$1]++ { sub(/^[^ ]* /, ""); print; fflush() }'
