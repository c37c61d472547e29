/*
 * For tests only. Never shipped, never set on a node.
 *
 * CRIU reads every resource limit of a process it dumps with
 *     prlimit64(pid, resource, NULL, &old)
 * and the kernel answers that for a process of another user only to a caller
 * with CAP_SYS_RESOURCE. A root on a real node has it; a root inside many CI
 * sandboxes has not, and then no container that runs as another user than root
 * can be dumped ("Can't get rlimit 0").
 *
 * CRIU makes that call through libc's syscall(2) wrapper, so this is what is
 * answered here (and prlimit(), should a later CRIU use that).
 *
 * This library, in LD_PRELOAD of criu, makes the real call first. Only when that
 * fails with EPERM, and only for a read, it takes the answer from
 * /proc/PID/limits, which root may read. Nothing else is changed: setting a limit
 * still needs the capability, and on a machine that has it the library does
 * nothing at all.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The names that /proc/PID/limits uses, by RLIMIT_ number (fs/proc/base.c). */
static const char *const names[] = {
	[RLIMIT_CPU] = "Max cpu time",
	[RLIMIT_FSIZE] = "Max file size",
	[RLIMIT_DATA] = "Max data size",
	[RLIMIT_STACK] = "Max stack size",
	[RLIMIT_CORE] = "Max core file size",
	[RLIMIT_RSS] = "Max resident set",
	[RLIMIT_NPROC] = "Max processes",
	[RLIMIT_NOFILE] = "Max open files",
	[RLIMIT_MEMLOCK] = "Max locked memory",
	[RLIMIT_AS] = "Max address space",
	[RLIMIT_LOCKS] = "Max file locks",
	[RLIMIT_SIGPENDING] = "Max pending signals",
	[RLIMIT_MSGQUEUE] = "Max msgqueue size",
	[RLIMIT_NICE] = "Max nice priority",
	[RLIMIT_RTPRIO] = "Max realtime priority",
	[RLIMIT_RTTIME] = "Max realtime timeout",
};

static int value(const char *word, rlim64_t *out)
{
	char *end;

	if (strcmp(word, "unlimited") == 0) {
		*out = RLIM64_INFINITY;
		return 0;
	}
	errno = 0;
	*out = strtoull(word, &end, 10);
	return (errno != 0 || end == word || *end != '\0') ? -1 : 0;
}

static int from_proc(pid_t pid, unsigned int resource, struct rlimit64 *old)
{
	char path[64], line[256], soft[32], hard[32];
	size_t len;
	int found = -1;
	FILE *f;

	if (resource >= sizeof(names) / sizeof(names[0]) || names[resource] == NULL)
		return -1;
	len = strlen(names[resource]);
	snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
	f = fopen(path, "re");
	if (f == NULL)
		return -1;
	while (fgets(line, sizeof(line), f) != NULL) {
		/* The name is followed by blanks: "Max file size" is not "Max file locks". */
		if (strncmp(line, names[resource], len) != 0 || line[len] != ' ')
			continue;
		if (sscanf(line + len, " %31s %31s", soft, hard) == 2 &&
		    value(soft, &old->rlim_cur) == 0 && value(hard, &old->rlim_max) == 0)
			found = 0;
		break;
	}
	fclose(f);
	return found;
}

typedef long (*syscall_fn)(long, ...);

/* libc's own syscall(): it sets errno, which we need to see. */
static syscall_fn libc_syscall(void)
{
	static syscall_fn next;

	if (next == NULL) {
		*(void **)&next = dlsym(RTLD_NEXT, "syscall");
		if (next == NULL)
			abort();
	}
	return next;
}

static long prlimit_call(pid_t pid, int resource, const struct rlimit64 *new_limit,
			 struct rlimit64 *old_limit)
{
	long ret = libc_syscall()(SYS_prlimit64, pid, resource, new_limit, old_limit);
	int err = errno;

	if (ret == 0 || err != EPERM || new_limit != NULL || old_limit == NULL || pid == 0)
		return ret;
	if (from_proc(pid, (unsigned int)resource, old_limit) == 0)
		return 0;
	errno = err;
	return -1;
}

long syscall(long number, ...)
{
	long a[6];
	va_list ap;

	/* A system call has at most six arguments, all of them a register wide. */
	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_prlimit64)
		return prlimit_call((pid_t)a[0], (int)a[1], (const struct rlimit64 *)a[2],
				    (struct rlimit64 *)a[3]);
	return libc_syscall()(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* On 64-bit machines struct rlimit and struct rlimit64 are the same. */
_Static_assert(sizeof(struct rlimit) == sizeof(struct rlimit64), "64-bit only");

int prlimit64(pid_t pid, enum __rlimit_resource resource, const struct rlimit64 *new_limit,
	      struct rlimit64 *old_limit)
{
	return (int)prlimit_call(pid, (int)resource, new_limit, old_limit);
}

int prlimit(pid_t pid, enum __rlimit_resource resource, const struct rlimit *new_limit,
	    struct rlimit *old_limit)
{
	return (int)prlimit_call(pid, (int)resource, (const struct rlimit64 *)new_limit,
				 (struct rlimit64 *)old_limit);
}
