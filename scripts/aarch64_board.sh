#!/usr/bin/env bash
# Emulate a 64-bit ARM machine for tests: Debian's arm64 userland under qemu, with its own sshd on loopback.
#
#   sudo scripts/aarch64_board.sh start [FOLDER] [PORT]    create it if needed (about four minutes) and start its sshd
#   sudo scripts/aarch64_board.sh stop [FOLDER]            end the sshd and unmount
#   sudo scripts/aarch64_board.sh remove [FOLDER]          stop and delete the folder
#
# `start` prints the ssh configuration to use: EMCA_DEPLOY_SSH_CONFIG=FOLDER/ssh_config emca-deploy profile M.onnx --target ssh://board
# Needs root and, on Debian: apt-get install debootstrap qemu-user-static binfmt-support openssh-server python3-pip
set -euo pipefail

COMMAND=${1:-start}
FOLDER=$(realpath -m "${2:-/var/tmp/emca-aarch64-board}")
PORT=${3:-2299}
ROOT=$FOLDER/root
RELEASE=bookworm
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
WHEELS="numpy onnxruntime==1.23.2 Pillow"   # packages of the remote side; ONNX Runtime 1.32 crashes on import under qemu 7.2
PYTHON=${PYTHON:-python3}           # local Python with pip

fail() { echo "error: $1" >&2; echo "  $2" >&2; exit 3; }

require() {
    [ "$(id -u)" = 0 ] || fail "root is required for mount and chroot" "run this with sudo"
    for tool in debootstrap qemu-aarch64-static update-binfmts ssh-keygen; do
        command -v "$tool" > /dev/null ||
            fail "$tool is missing" "apt-get install debootstrap qemu-user-static binfmt-support openssh-server"
    done
}

register() {
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    update-binfmts --enable qemu-aarch64 2> /dev/null || true
    [ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ] || fail "the kernel does not run aarch64 programs" "check: update-binfmts --display qemu-aarch64"
}

mounted() { grep -q " $1 " /proc/mounts; }

mount_all() {
    for place in proc sys dev dev/pts; do
        mkdir -p "$ROOT/$place"
        mounted "$ROOT/$place" || mount --bind "/$place" "$ROOT/$place"
    done
}

unmount_all() {
    for place in dev/pts dev sys proc; do
        for _ in $(seq 20); do # processes of ended connections may still be running
            mounted "$ROOT/$place" || continue 2
            umount "$ROOT/$place" 2> /dev/null || sleep 0.5
        done
        mounted "$ROOT/$place" && fail "$ROOT/$place is in use" "stop the processes below $ROOT and run this again"
    done
    return 0
}

# The last step writes the stamp: a folder without it is made again.
make_root() {
    [ -e "$FOLDER/made" ] && return
    unmount_all
    rm -rf "$ROOT"
    mkdir -p "$ROOT"
    debootstrap --arch=arm64 --variant=minbase --foreign --include=python3,python3-pip,openssh-server,ca-certificates \
        "$RELEASE" "$ROOT" "$MIRROR"
    chroot "$ROOT" /debootstrap/debootstrap --second-stage
    version=$(chroot "$ROOT" python3 -c 'import sys; print(f"{sys.version_info[0]}.{sys.version_info[1]}")')
    "$PYTHON" -m pip download --quiet --dest "$ROOT/wheels" --only-binary=:all: --python-version "$version" \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 $WHEELS
    chroot "$ROOT" python3 -m pip install --quiet --break-system-packages --no-index --find-links /wheels $WHEELS
    rm -rf "$ROOT/wheels"
    touch "$FOLDER/made"
}

make_keys() {
    [ -e "$FOLDER/key" ] || ssh-keygen -q -t ed25519 -N '' -C emca-deploy-test -f "$FOLDER/key"
    mkdir -p "$ROOT/root/.ssh" "$ROOT/run/sshd"
    cp "$FOLDER/key.pub" "$ROOT/root/.ssh/authorized_keys"
    chmod 700 "$ROOT/root/.ssh"
    chmod 600 "$ROOT/root/.ssh/authorized_keys"
    { printf '[127.0.0.1]:%s ' "$PORT"; cut -d' ' -f1,2 "$ROOT/etc/ssh/ssh_host_ed25519_key.pub"; } > "$FOLDER/known_hosts"
    cat > "$FOLDER/ssh_config" << END
Host board
    HostName 127.0.0.1
    Port $PORT
    User root
    IdentityFile $FOLDER/key
    IdentitiesOnly yes
    UserKnownHostsFile $FOLDER/known_hosts
    StrictHostKeyChecking yes
END
}

pid_of_sshd() { cat "$ROOT/run/board_sshd.pid" 2> /dev/null || true; }

stop_sshd() {
    pid=$(pid_of_sshd)
    if [ -n "$pid" ] && kill -0 "$pid" 2> /dev/null; then
        pkill -P "$pid" || true
        kill "$pid"
    fi
    rm -f "$ROOT/run/board_sshd.pid"
}

# qemu does not support seccomp filters: the sandbox of sshd's unprivileged process must be off.
start_sshd() {
    stop_sshd
    chroot "$ROOT" /usr/sbin/sshd -p "$PORT" -o ListenAddress=127.0.0.1 -o PidFile=/run/board_sshd.pid -o UsePAM=no \
        -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no -o PrintMotd=no
}

case $COMMAND in
    start)
        require
        mkdir -p "$FOLDER"
        register
        make_root
        mount_all
        make_keys
        start_sshd
        echo "EMCA_DEPLOY_SSH_CONFIG=$FOLDER/ssh_config"
        ssh -F "$FOLDER/ssh_config" -o BatchMode=yes board 'echo "board: $(uname -m), $(python3 --version)"'
        ;;
    stop)
        require
        stop_sshd
        unmount_all
        ;;
    remove)
        require
        stop_sshd
        unmount_all
        grep -q " $ROOT" /proc/mounts && fail "something is still mounted below $ROOT" "unmount it and run this again"
        rm -rf "$FOLDER"
        ;;
    *) fail "$COMMAND: no such command" "use start, stop or remove" ;;
esac
