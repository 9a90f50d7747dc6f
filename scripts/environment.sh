# Sourced by the other scripts: finds a Python, and makes and fills the virtual environment when it is not up to date.
# Everything here is said on stderr: the stdout of a script belongs to the program that it runs.
# It must run with the bash 3.2 of macOS and without GNU tools.
# shellcheck shell=bash

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Below this line of constraints.txt stand the packages that only the tests need, and the extras, which they test.
tests_only_line='# Only the tests need these:'

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# The comment at the head of a script is its help.
print_help() { sed -n '2,/^$/s/^# \{0,1\}//p' "$1"; }

# "3.13 3.12 3.11": what the classifiers promise, newest first.
supported_pythons() {
    sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9][0-9]*\)".*/\1/p' "$project/pyproject.toml" |
        sort -t . -k 2 -rn | tr '\n' ' '
}

# Prints "3.13" for a Python that runs, and nothing for one that does not (a pyenv shim without a version behind it, say).
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# Where a Python 3.x may be installed without being on the PATH.
pythons_named() {
    command -v "python$1" || true
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1" 2>/dev/null || true
}

# find_python 3.13: prints the path of a working Python of that version, or nothing.
find_python() {
    local candidate
    while read -r candidate; do
        if [ "$(version_of "$candidate")" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done <<<"$(command -v python3 || true)
$(pythons_named "$1")"
    if has_uv; then
        uv python find --no-project "$1" 2>/dev/null || true
    fi
}

# The system's python3, when it can make environments: distributions compile theirs with more optimizations than pyenv
# does, and a task costs a seventh less with it. Whoever has made another one active means that. On a Mac it may be a stub
# that opens a dialog.
system_python() {
    [ "$(uname)" = Linux ] && [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}${PYENV_VERSION:-}" ] || return 0
    [ ! -e "$project/.python-version" ] || return 0
    if /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then echo /usr/bin/python3; fi
}

is_supported() { # 3.13 or nothing
    case " $(supported_pythons)" in *" ${1:-none} "*) ;; *) return 1 ;; esac
}

# The system's python3 or that of the PATH when it is a supported one, else the newest supported one that can be found.
find_any_python() {
    local version python
    python=$(system_python)
    if [ -n "$python" ] && is_supported "$(version_of "$python")"; then
        echo "$python"
        return
    fi
    for version in "$(version_of python3)" $(supported_pythons); do
        is_supported "$version" || continue
        python=$(find_python "$version")
        if [ -n "$python" ]; then
            echo "$python"
            return
        fi
    done
}

has_uv() { uv --version >/dev/null 2>&1; }

# choose_python [3.13]: prints the Python to build the environment from, or explains why there is none.
choose_python() {
    local python
    if [ -n "${1:-}" ]; then python=$(find_python "$1"); else python=$(find_any_python); fi
    if [ -n "$python" ]; then
        echo "$python"
    elif has_uv; then
        echo "${1:-$(supported_pythons | cut -d ' ' -f 1)}" # uv downloads it
    else
        fail "no Python ${1:-$(supported_pythons | sed 's/ $//; s/ / or /g')} was found (looked on the PATH and in" \
            "${PYENV_ROOT:-$HOME/.pyenv}/versions). Install it, or install uv, which can fetch it."
    fi
}

make_venv() { # venv, version or nothing
    local python
    python=$(choose_python "$2")
    say "Making $1 with $python"
    rm -rf "$1"
    if has_uv; then
        uv venv --quiet --python "$python" "$1" >&2
    else
        "$python" -m venv "$1" >&2 ||
            fail "$python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"
    fi
}

# The pinned packages: all of them for the tests, those of peertask itself otherwise.
pinned_packages() { # runtime | test
    if [ "$1" = test ]; then
        cat "$project/constraints.txt"
    else
        sed "/^$tests_only_line/,\$d" "$project/constraints.txt"
    fi
}

# Without the resolver (--no-deps): constraints.txt is complete, and says in one place (pyproject.toml, tool.uv) where it
# overrides what a package asks for.
install_packages() { # venv, runtime | test
    local pins=$1/pinned-packages.txt installer
    if has_uv; then
        installer=(uv pip install --quiet --compile-bytecode --python "$1/bin/python")
    else
        # Without --use-pep517 pip warns of packages that are built the old way, which concerns nobody here.
        [ -x "$1/bin/pip" ] || "$1/bin/python" -m ensurepip >/dev/null
        installer=("$1/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517)
    fi
    pinned_packages "$2" >"$pins"
    "${installer[@]}" --no-deps -r "$pins" >&2
    "${installer[@]}" --no-deps -e "$project" >&2
}

# What an environment was filled from; when it changes, the environment is filled again.
fingerprint() { # venv, runtime | test
    {
        echo "$2 $project"
        "$1/bin/python" -VV 2>/dev/null || echo "no Python"
        cat "$project/pyproject.toml" "$project/constraints.txt"
    } | cksum
}

is_current() { # venv, runtime | test
    local stamp=$1/peertask-installed
    [ -x "$1/bin/peertask" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint "$1" "$2")" ]
}

# Its Python runs and is new enough, and the folder was not copied or moved here: its programs name their Python by path.
is_usable() { # venv
    local version program=$1/bin/peertask
    version=$(version_of "$1/bin/python")
    [ -n "$version" ] && [ "${version#*.}" -ge 11 ] && { [ ! -e "$program" ] || grep -qF "$1/bin/python" "$program"; }
}

# Two scripts at once in a fresh clone must not both fill the environment. A lock whose owner has gone is taken over.
with_lock() { # venv, command...
    local lock=$1-lock owner told=no
    shift
    until mkdir "$lock" 2>/dev/null; do
        owner=$(cat "$lock/pid" 2>/dev/null || true)
        if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
            rm -rf "$lock"
        elif [ "$told" = no ]; then
            say "Waiting for process ${owner:-(unknown)}, which is setting up the same environment." \
                "If no such process runs, remove $lock"
            told=yes
        else
            sleep 1
        fi
    done
    echo $$ >"$lock/pid"
    trap 'rm -rf "'"$lock"'"' EXIT
    "$@"
    rm -rf "$lock"
    trap - EXIT
}

fill_venv() { # venv, runtime | test, version or nothing
    is_current "$1" "$2" && return # another script has done it while this one waited
    is_usable "$1" || make_venv "$1" "$3"
    rm -f "$1/peertask-installed"
    say "Installing into $1 (the first time takes about a minute)"
    install_packages "$1" "$2"
    fingerprint "$1" "$2" >"$1/peertask-installed"
}

# set_up_environment runtime|test [3.13]: sets $venv. Without a version it is .venv, with one .venv-3.13.
# An environment that already has the test packages is good for running too, and stays as it is.
set_up_environment() {
    venv=$project/.venv${2:+-$2}
    if [ "$1" = runtime ] && is_current "$venv" test; then return; fi
    if ! is_current "$venv" "$1"; then
        with_lock "$venv" fill_venv "$venv" "$1" "${2:-}"
    fi
}

asks_for_help() {
    local argument
    for argument in "$@"; do
        case $argument in -h | --help) return 0 ;; esac
    done
    return 1
}

# run_peertask command script [arguments...]: the whole of a script that wraps one command of peertask.
run_peertask() {
    local command=$1 script=$2
    shift 2
    if asks_for_help "$@"; then
        print_help "$script"
        if is_usable "$project/.venv" && [ -x "$project/.venv/bin/peertask" ]; then
            echo
            exec "$project/.venv/bin/peertask" "$command" --help
        fi
        exit 0
    fi
    set_up_environment runtime
    exec "$venv/bin/peertask" "$command" "$@"
}

# stage "name" command...: runs a part of a script under a heading, and goes on when it fails, so that one run shows
# everything. finish_stages prints a line for each part and fails when one did.
stage_report=''
stages_failed=no

report_stage() { # name, ok | FAILED, the second at which it began
    [ "$2" = ok ] || stages_failed=yes
    stage_report+=$(printf '%-16s %-6s %5d s' "$1" "$2" $((SECONDS - $3)))$'\n'
}

stage() {
    local name=$1 start=$SECONDS outcome=ok status
    shift
    printf '\n== %s\n' "$name"
    set +e # not `if` or `||`: they would switch `set -e` off inside the command too
    (set -e; "$@")
    status=$?
    set -e
    [ "$status" -eq 0 ] || outcome=FAILED
    report_stage "$name" "$outcome" "$start"
}

finish_stages() {
    printf '\n%s' "$stage_report"
    [ "$stages_failed" = no ]
}
