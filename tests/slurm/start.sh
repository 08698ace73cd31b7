#!/usr/bin/env bash
# Starts a Slurm cluster of two nodes on the loopback interface, for tests; prints the path of its slurm.conf.
# Usage: start.sh FOLDER [stop]. Needs root, slurm-wlm and munge (Debian's packages). Everything lies in FOLDER, which
# must be short: a socket's path has at most 107 characters. `export SLURM_CONF=FOLDER/slurm.conf` makes sbatch and
# squeue talk to it. There is no accounting, as on many small clusters; finished jobs are forgotten after ten seconds.
set -euo pipefail
folder=${1:?a folder}
verb=${2:-start}
export SLURM_CONF=$folder/slurm.conf

# Ends a daemon by its pid file, and only if it is what the file says.
end() {
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) || return 0
    grep -aq "$folder" "/proc/$pid/cmdline" 2>/dev/null || return 0
    kill "$2" "$pid" 2>/dev/null || return 0
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null || true
}
daemons=(slurmctld slurmd.node1 slurmd.node2)

case $verb in
stop)
    # The jobs first: a daemon's end leaves them running.
    timeout 10 scancel --me --full 2>/dev/null || true
    sleep 1
    for daemon in "${daemons[@]}"; do end "$daemon" -TERM; done
    end munged -TERM
    exit 0
    ;;
stop-controller)
    end slurmctld -TERM
    exit 0
    ;;
start-controller) ;;
start)
    mkdir -p "$folder"/{state,spool.node1,spool.node2}
    # Its own key and socket: another munge of the machine is left alone.
    [[ -f $folder/munge.key ]] || { head -c 1024 /dev/urandom >"$folder/munge.key"; chmod 400 "$folder/munge.key"; }
    # Linux: as many ports as there are daemons, none of them in use.
    read -r c1 c2 c3 < <(python3 - <<'PORTS'
import socket
held = [socket.socket() for _ in range(3)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))
PORTS
)
    cpus=${ATFLOW_SLURM_CPUS:-4}
    cat >"$folder/slurm.conf" <<CONF
ClusterName=atflow
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$c1
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ReturnToService=2
MinJobAge=${ATFLOW_SLURM_MIN_JOB_AGE:-10}
SlurmdTimeout=20
KillWait=5
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1,requeue_delay=0,nohold_on_prolog_fail
DefMemPerCPU=64
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName=node1 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$c2 CPUs=$cpus RealMemory=4000 State=UNKNOWN
NodeName=node2 NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$c3 CPUs=$cpus RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=5 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 State=UP
CONF
    echo "CgroupAutomount=no" >"$folder/cgroup.conf"
    munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --force 2>/dev/null
    ;;
*)
    echo "no such verb: $verb" >&2
    exit 2
    ;;
esac
slurmctld -f "$SLURM_CONF"
if [[ $verb == start ]]; then
    slurmd -f "$SLURM_CONF" -N node1
    slurmd -f "$SLURM_CONF" -N node2
fi
for _ in $(seq 100); do
    [[ $(sinfo -h -o %T -N -p main 2>/dev/null | grep -Ec '^(idle|mixed|allocated)$') == 2 ]] && break
    sleep 0.2
done
[[ $(sinfo -h -o %T -N -p main | grep -Ec '^(idle|mixed|allocated)$') == 2 ]] || { sinfo >&2; exit 1; }
echo "$SLURM_CONF"
