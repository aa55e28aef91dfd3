#!/usr/bin/env bash
# Run statically linked programs on an emulated processor that has AVX-512, on a machine that has not.
#
#   validate/emulate/run.sh BUILD_DIR SECONDS COMMANDS FILE...
#
# COMMANDS is a shell script text; FILEs are put into the machine's root folder. Debian's Bochs executes every
# instruction of a stock Debian kernel and of the program (about 1/50 of real speed; a boot takes half a minute), so
# this shows that AVX-512 code is right and says nothing about its speed. One thread only (avx_on.c says why).
# Needs root (apt-get) the first time, or the packages below. Exit status: that of COMMANDS; 124 after SECONDS.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
dir=$(mkdir -p "$1" && cd "$1" && pwd) seconds=$2 commands=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
packages=(bochs bochsbios vgabios isolinux syslinux-common genisoimage busybox-static cpio linux-headers-cloud-amd64)

install_packages() {
    dpkg -s "${packages[@]}" >/dev/null 2>&1 && return
    echo "emulate: installing ${packages[*]}"
    local as=()
    [ "$(id -u)" -eq 0 ] || as=(sudo)
    { "${as[@]}" apt-get update && DEBIAN_FRONTEND=noninteractive "${as[@]}" apt-get install -y --no-install-recommends "${packages[@]}"; } \
        >"$dir/apt.log" 2>&1 || { tail "$dir/apt.log" >&2; echo "emulate: apt-get failed" >&2; exit 1; }
}

# The kernel that the installed headers belong to, unpacked, never installed.
fetch_kernel() {
    release=$(basename "$(find /lib/modules /usr/lib/modules -maxdepth 1 -name '*-cloud-amd64' | sort -V | tail -n 1)")
    [ -s "$dir/vmlinuz-$release" ] && return
    (cd "$dir" && apt-get download "linux-image-$release" >apt.log 2>&1 && dpkg -x "linux-image-$release"_*.deb kernel &&
        cp "kernel/boot/vmlinuz-$release" . && rm -rf kernel "linux-image-$release"_*.deb) ||
        { tail "$dir/apt.log" >&2; echo "emulate: could not fetch linux-image-$release" >&2; exit 1; }
}

build_module() {
    mkdir -p "$dir/module"
    cp "$here/avx_on.c" "$dir/module/"
    echo 'obj-m := avx_on.o' >"$dir/module/Makefile"
    make -s -C "/lib/modules/$release/build" M="$dir/module" modules >"$dir/module.log" 2>&1 ||
        { tail "$dir/module.log" >&2; exit 1; }
}

build_image() {
    local root=$dir/root iso=$dir/iso tool
    rm -rf "$root" "$iso"
    mkdir -p "$root"/{proc,dev,tmp,bin} "$iso/isolinux"
    gcc -static -O2 -Wall -Wextra "$here/init.c" -o "$root/init"
    cp "$dir/module/avx_on.ko" "$root/"
    cp /bin/busybox "$root/bin/"
    for tool in sh cat ls echo env; do ln -s busybox "$root/bin/$tool"; done
    printf '%s\n' "$commands" >"$root/run.sh"
    cp -r "$@" "$root/"
    (cd "$root" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$iso/initrd.gz"
    cp "$dir/vmlinuz-$release" "$iso/vmlinuz"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$iso/isolinux/"
    cat >"$iso/isolinux/isolinux.cfg" <<CFG
DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
  KERNEL /vmlinuz
  INITRD /initrd.gz
  APPEND console=ttyS0,115200 quiet nopti mitigations=off nokaslr tsc=reliable lpj=1000000 no_timer_check security=none audit=0 panic=1 random.trust_cpu=on
CFG
    genisoimage -quiet -o "$dir/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
        -no-emul-boot -boot-load-size 4 -boot-info-table "$iso"
}

# The emulated machine reboots when it is done; the emulator is stopped as soon as the verdict is on the serial line.
boot() {
    sed "s|@DIR@|$dir|" "$here/bochsrc.in" >"$dir/bochsrc"
    echo c >"$dir/continue"
    : >"$dir/serial.txt"
    bochs -q -f "$dir/bochsrc" -rc "$dir/continue" >"$dir/bochs.out" 2>&1 &
    emulator=$!
    local shown=0 size
    trap 'kill $emulator 2>/dev/null || true' EXIT
    for ((; SECONDS < seconds; )); do
        sleep 1
        size=$(stat -c %s "$dir/serial.txt")
        if [ "$size" -gt "$shown" ]; then tail -c +$((shown + 1)) "$dir/serial.txt" | head -c $((size - shown)) | tr -d '\r'; shown=$size; fi
        if grep -q '^EMULATED EXIT' "$dir/serial.txt"; then
            return "$(sed -n 's/^EMULATED EXIT \([0-9]*\).*/\1/p' "$dir/serial.txt" | tail -n 1)"
        fi
        kill -0 $emulator 2>/dev/null || { tail "$dir/bochs.out" >&2; echo "emulate: the emulator ended early ($dir/bochs.log)" >&2; return 1; }
    done
    echo "emulate: no verdict within $seconds s" >&2
    return 124
}

install_packages
fetch_kernel
build_module
build_image "$@"
SECONDS=0
boot
