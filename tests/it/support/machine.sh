#!/bin/sh
# Boots systemd in namespaces of its own: machine.sh <folder>. Its root is a copy-on-write view of this machine's, and its
# network is this machine's. It runs no unit but systemd's own, and changes nothing outside <folder>.
set -eu
folder=$1
root=$folder/root

# In a cgroup of its own, so that systemd manages no process outside the machine.
if [ "${2-}" != inside ]; then
  mount --make-rprivate /
  mkdir "$folder/layers" "$root" "$folder/cgroup"
  mount -t cgroup2 cgroup2 "$folder/cgroup"
  group=$folder/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/purse-$$
  mkdir "$group"
  echo $$ >"$group/cgroup.procs"
  exec unshare --cgroup --pid --fork --kill-child --mount-proc "$0" "$folder" inside
fi

mount -t tmpfs -o size=512m tmpfs "$folder/layers"
mkdir "$folder/layers/upper" "$folder/layers/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/layers/upper,workdir=$folder/layers/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"

# The units and generators of this machine do not run in it.
rm -rf "$root"/etc/systemd/system "$root"/usr/lib/systemd/system-generators "$root"/etc/purse
find "$root"/usr/lib/systemd/system -name '*.wants' -prune -exec rm -r {} +
units=$root/etc/systemd/system
mkdir -p "$units/sockets.target.wants" "$units/sysinit.target.wants"
ln -s /usr/lib/systemd/system/systemd-journald.socket "$units/sockets.target.wants/"
ln -s /usr/lib/systemd/system/systemd-journald.service "$units/sysinit.target.wants/"
for unit in systemd-journal-flush.service systemd-journald-audit.socket systemd-journald-dev-log.socket; do
  ln -s /dev/null "$units/$unit"
done
# Not chroot, in which no service could have a user namespace.
cd "$root"
pivot_root . mnt
umount --lazy /mnt
# As systemd expects in a container: a service sees the credentials that are mounted for it.
mount --make-rshared /
exec /usr/bin/env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /usr/lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
