# guest.sh - runs as the first process of the machine that prove.sh boots. Each line it prints that
# begins with "ok" or "FAILED" is one promise; the last line says whether all held.
export PATH=/bin LD_BIND_NOW=1
/bin/busybox --install -s /bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t tmpfs none /tmp
mount -t cgroup2 none /sys/fs/cgroup || echo "FAILED no control groups of version 2"
top=/sys/fs/cgroup
echo +memory >$top/cgroup.subtree_control
n_failed=0
mib=1048576

ok() { echo "ok $*"; }
failed() {
    echo "FAILED $*"
    n_failed=$((n_failed + 1))
}

# group NAME: an empty group, all limits off
group() {
    rmdir $top/$1/inner $top/$1 2>/dev/null
    mkdir $top/$1
    echo 3 >/proc/sys/vm/drop_caches
}

# within GROUP COMMAND: runs it as a member, everything it touches first being charged to the group
within() {
    member=$top/$1/cgroup.procs
    shift
    sh -c 'echo $$ >'$member'; exec "$@"' sh "$@"
}

value() { cat $top/$1; }
event() { sed -n "s/^$2 //p" $top/$1/memory.events; }
now() { cut -d' ' -f1 /proc/uptime; }

# answer MODEL ARGUMENTS: the runs that are compared; N tokens
cat >/bin/answer <<'END'
#!/bin/sh
model=$1
shift
exec onetrip run /$model.gguf --raw -p "The sky is blue because" -n ${N:-4} --temp 0 "$@"
END
chmod +x /bin/answer

# held GROUP SIZE REFERENCE RC WHAT: nothing was killed, the peak is within, the text is the same
held() {
    peak=$(value $1/memory.peak)
    kills=$(event $1 oom_kill)
    if [ $4 = 0 ] && [ "$kills" = 0 ] && [ $peak -le $2 ] && cmp -s /tmp/out $3; then
        ok "$5: peak $((peak / mib)) of $(($2 / mib)) MiB"
    else
        failed "$5: exit $4, peak $peak of $2, oom_kill $kills, text $(cmp $3 /tmp/out && echo same)"
        tail -3 /tmp/err
    fi
}

echo "kernel $(uname -r), $(nproc) processors, $(sed -n 's/MemTotal: *//p' /proc/meminfo)"
for m in model tiny; do
    answer $m -q >/tmp/$m.text 2>/tmp/err || { failed "reference of $m"; cat /tmp/err; }
done
N=10 answer model -q >/tmp/long.text 2>/tmp/err

# ---- auto reads the limits of the group and of those above ----

# budget GROUP EXPECTED WHAT
budget() {
    within $1 answer model --report /tmp/report -q >/tmp/out 2>/tmp/err
    rc=$?
    ram=$(grep -o '"ram": [0-9]*' /tmp/report | grep -o '[0-9]*$')
    if [ $rc = 0 ] && [ "$ram" = $2 ] && cmp -s /tmp/out /tmp/model.text && [ "$(event $1 oom_kill)" = 0 ]; then
        ok "--ram auto: $3: budget $ram"
    else
        failed "--ram auto: $3: budget $ram, expected $2, exit $rc"
        tail -3 /tmp/err
    fi
}
size=$((64 * mib))
share=$((size / 20 * 19))
group a
echo $size >$top/a/memory.max
budget a $share "memory.max of its own group"
group a
echo $size >$top/a/memory.max
echo +memory >$top/a/cgroup.subtree_control
mkdir $top/a/inner
budget a/inner $share "memory.max of the group above"
rmdir $top/a/inner
group a
echo $size >$top/a/memory.high
budget a $share "memory.high"

# ---- io_uring refused ----
if [ -e /proc/sys/kernel/io_uring_disabled ]; then
    echo 2 >/proc/sys/kernel/io_uring_disabled
    refused=""
else
    refused="refuse --refuse 1 425,426,427" # EPERM for its three calls
fi
group c
echo $((64 * mib)) >$top/c/memory.max
within c $refused /bin/sh /bin/answer model --ram 64MiB --report /tmp/report -q >/tmp/out 2>/tmp/err
held c $((64 * mib)) /tmp/model.text $? "io_uring refused"
grep -q '"io": "threads direct"' /tmp/report && ok "its report says threads" || failed "its report does not say threads"
[ -n "$refused" ] || echo 0 >/proc/sys/kernel/io_uring_disabled

# ---- limits that are lowered while it runs ----

# lowered FILE BYTES: starts with 64 MiB of budget in a group of 96, lowers the limit after the first
# words; leaves the exit code in rc, and what is used 5 seconds later in used
lowered() {
    group d
    echo $((96 * mib)) >$top/d/memory.max
    : >/tmp/out
    began=$(now)
    N=10 within d answer model --ram 64MiB -q >/tmp/out 2>/tmp/err &
    running=$!
    while [ ! -s /tmp/out ] && kill -0 $running; do sleep 0.1; done
    echo "   lowering $1 to $2, $(value d/memory.current) are used"
    echo $2 >$top/d/$1
    sleep 5
    used=$(value d/memory.current)
    echo "   after 5 s: $used used, $(wc -c </tmp/out) bytes of text"
    wait $running
    rc=$?
    echo "   exit $rc, oom_kill $(event d oom_kill), took from $began to $(now) s"
}
for lower in "memory.max 64" "memory.high 64" "memory.high 48"; do
    size=$((${lower#* } * mib))
    lowered ${lower% *} $size
    if [ $rc = 0 ] && [ "$(event d oom_kill)" = 0 ] && [ $used -le $size ] && cmp -s /tmp/out /tmp/long.text; then
        ok "$lower MiB while running with 64"
    else
        failed "$lower MiB while running with 64"
    fi
done
lowered memory.high $((24 * mib))
if [ $rc = 1 ] && grep -q "limit was lowered" /tmp/err && [ $(wc -l </tmp/err) = 1 ]; then
    ok "memory.high lowered further than can be given back: $(cat /tmp/err)"
else
    failed "memory.high lowered further than can be given back: $(cat /tmp/err)"
fi
lowered memory.max $((24 * mib))
echo "   (memory.max below what is wired: the kernel ends the process at once, exit 137)"

# ---- a group of exactly the budget, from the least one up ----
for m in tiny model; do
    ctx=64
    [ $m = model ] && ctx=320
    told=$(answer $m -c $ctx --ram 1M -q 2>&1 >/dev/null | sed -n 's/.*(\([0-9]*\) bytes).*/\1/p')
    for mode in auto cache wired stream; do
        sizes="$told $((told + 3 * mib + 12345))"
        [ $m = model ] && sizes="$sizes $((90 * mib + 1)) $((150 * mib))"
        for size in $sizes; do
            group b
            echo $size >$top/b/memory.max
            within b answer $m -c $ctx --ram $size --residency $mode -q >/tmp/out 2>/tmp/err
            held b $size /tmp/$m.text $? "$m, $size bytes, context $ctx, $mode"
        done
    done
done

[ $n_failed = 0 ] && echo "cgroup2: all held" || echo "cgroup2: $n_failed promises broken"
poweroff -f
