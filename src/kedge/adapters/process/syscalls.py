"""The table of system calls that a fenced model process may not make, with the reason of each group.

A model needs none of them: it reads its files, computes, and answers on connections that the host accepts.
Everything that is not named here goes on to the kernel's own rules and to Landlock.
"""

from __future__ import annotations

NUMBERS: dict[str, tuple[int, int]] = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "chmod": (90, -1), "chown": (92, -1), "chroot": (161, 51), "clock_adjtime": (305, 266),
    "clock_settime": (227, 112), "clone": (56, 220), "clone3": (435, 435), "connect": (42, 203),
    "delete_module": (176, 106), "execve": (59, 221), "execveat": (322, 281), "fanotify_init": (300, 262),
    "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchownat": (260, 54), "finit_module": (313, 273),
    "fork": (57, -1), "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "futimesat": (261, -1), "init_module": (175, 105), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29), "ioperm": (173, -1),
    "iopl": (172, -1), "ioprio_set": (251, 30), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "kill": (62, 129), "lchown": (94, -1),
    "lsetxattr": (189, 6), "lremovexattr": (198, 15), "mbind": (237, 235), "migrate_pages": (256, 238),
    "mknod": (133, -1), "mknodat": (259, 33), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pivot_root": (155, 41),
    "prlimit64": (302, 261), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142), "removexattr": (197, 14),
    "request_key": (249, 218), "rt_sigaction": (13, 134), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "semget": (64, 190),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140),
    "settimeofday": (164, 170), "setxattr": (188, 5), "shmget": (29, 194), "socket": (41, 198),
    "socketpair": (53, 199), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "tgkill": (234, 131), "tkill": (200, 130), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "utime": (132, -1), "utimensat": (280, 88), "utimes": (235, -1),
    "vfork": (58, -1), "vhangup": (153, 58),
}  # fmt: skip
"""By name: the number on x86_64 and on aarch64; -1 where there is none."""

NEVER: dict[str, tuple[str, ...]] = {
    "it reaches nobody by a socket of its own": ("socket", "connect"),
    "it starts no program and no process": ("execve", "execveat", "fork", "vfork"),
    "it looks into no other process": (
        "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "kcmp", "pidfd_open",
        "pidfd_getfd", "perf_event_open", "userfaultfd", "migrate_pages", "move_pages",
    ),
    "it signals no other process": (
        "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal",
    ),
    "Landlock does not judge who owns a file, or what it may do": (
        "chmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchownat", "setxattr", "lsetxattr", "removexattr",
        "lremovexattr", "utime", "utimes", "futimesat", "utimensat", "mknod", "mknodat",
    ),
    "a file is opened by its name, which Landlock judges": ("open_by_handle_at", "name_to_handle_at", "fanotify_init"),
    "the kernel's programs and modules are none of its business": (
        "bpf", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog",
        "iopl", "ioperm", "acct", "quotactl", "quotactl_fd", "swapon", "swapoff", "vhangup",
    ),
    "what is mounted, and in which namespace, stays as it is": (
        "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
        "mount_setattr", "setns", "unshare", "sethostname", "setdomainname",
    ),
    "the clock is everybody's": ("settimeofday", "clock_settime", "clock_adjtime", "adjtimex"),
    "keys and shared memory are ways to other processes": (
        "add_key", "request_key", "keyctl", "shmget", "semget", "msgget", "mq_open", "mq_unlink",
    ),
}  # fmt: skip
"""What is refused whatever its arguments say (EPERM)."""

ABSENT: dict[str, tuple[str, ...]] = {
    "its arguments lie in memory, where a filter does not see them; the C library then takes `clone`": ("clone3",),
    "it does by a queue what is refused as a call": (
        "io_uring_setup", "io_uring_enter", "io_uring_register",
    ),
}  # fmt: skip
"""What answers as if the kernel did not have it (ENOSYS), for there is another way."""
