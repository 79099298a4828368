#!/bin/busybox sh
# The first process of a micro guest.

/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
exec </dev/console >/dev/console 2>&1

name=micro
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in
    hero.name=*) name=${word#hero.name=} ;;
    hero.probe=1) probe=1 ;;
  esac
done
/bin/busybox hostname "$name"
echo "hero micro: $name ready"
[ -n "$probe" ] && /bin/busybox poweroff -f

export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root TERM=linux
/bin/busybox --install -s
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /tmp /run /root
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
echo "127.0.0.1 localhost $name" >/etc/hosts
ip link set lo up

while read -r module; do
  insmod "/lib/modules/$module"
done </lib/modules/order

if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -i eth0 -b -q -s /etc/udhcpc.sh >/dev/null 2>&1 &
fi

# busybox acpid runs /etc/acpi/PWRF/00000080 when the power button is pressed.
acpid -l /dev/null

cd /root
while true; do
  setsid cttyhack sh -c 'stty cols 80 rows 24; exec sh -l'
done
