#!/bin/sh
# Boots a Debian kernel in an emulator, with control groups of version 2 alone, and lets guest.sh
# prove there what the budget promises: prove.sh BUILD_DIR MODEL. BUILD_DIR is a Release build with
# its tests; nothing outside of it is written, and nothing but Debian packages is fetched.
#
# The kernel is unpacked, not installed: this machine boots as before. Takes some minutes, since the
# emulator runs everything, kernels for AVX2 included, in software.
set -eu

build=$(cd "$1" && pwd)
model=$2
here=$(cd "$(dirname "$0")" && pwd)
work=$build/cgroup2
mkdir -p "$work/root" "$work/boot"
cd "$work"

# ---- the kernel ----
if [ ! -e boot/vmlinuz ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    rm -rf kernel ./*.deb
    apt-get download -q "$package" >/dev/null
    dpkg-deb -x "$package"_*.deb kernel
    cp kernel/boot/vmlinuz-* boot/vmlinuz
fi

# ---- the first root: modules for the disk ----
rm -rf first
mkdir -p first/bin first/dev first/proc first/root
cp "$(command -v busybox)" first/bin/busybox
for name in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    find kernel/lib/modules -name "$name.ko" -exec cp {} first/ \;
done
cat >first/init <<'END'
#!/bin/busybox sh
b=/bin/busybox
for name in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk; do
    [ -e /$name.ko ] && $b insmod /$name.ko
done
$b mount -t devtmpfs none /dev
$b mount -t ext4 /dev/vda /root || $b poweroff -f
exec $b switch_root /root /bin/busybox sh /guest.sh
END
chmod +x first/init
(cd first && find . | cpio -o -H newc --quiet | gzip -1) >boot/first.gz

# ---- the disk: the program, its libraries, the model ----
rm -rf root disk.ext4
mkdir -p root/bin root/dev root/proc root/sys root/tmp root/lib64
cp "$(command -v busybox)" root/bin/busybox
cp "$here/guest.sh" root/guest.sh
cp "$build/onetrip" root/bin/onetrip
cp "$build/tests/test_refused" root/bin/refuse
for program in "$build/onetrip" "$build/tests/test_refused"; do
    ldd "$program" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/lib64[^ ]*\) .*/\1/p'
done | sort -u | while read -r library; do
    mkdir -p "root$(dirname "$library")"
    cp -L "$library" "root$library"
done
cp "$model" root/model.gguf
"$build/tests/make_tiny" root/tiny.gguf qwen3moe Q4_0
room_mib=$(($(du -sm root | cut -f1) + 48))
mke2fs -q -t ext4 -d root disk.ext4 "${room_mib}M"

# ---- boot ----
log=$work/log.txt
timeout 1500 qemu-system-x86_64 -accel tcg -cpu max -smp 2 -m 448 -display none -serial stdio -no-reboot -nic none \
    -kernel boot/vmlinuz -initrd boot/first.gz \
    -append "console=ttyS0 quiet panic=-1 mitigations=off" \
    -drive file=disk.ext4,format=raw,if=virtio,cache=none </dev/null | sed -u 's/\r$//' | tee "$log"
grep -q '^cgroup2: all held$' "$log"
