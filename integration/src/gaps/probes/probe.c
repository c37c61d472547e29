/* Asks the kernel what a shell cannot: statically linked, in every case's image. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *name_of(int error)
{
	return error ? strerrorname_np(error) : "ok";
}

/* Waits for ever, as process 1, and reaps. */
static _Noreturn void wait_for_ever(void)
{
	for (;;)
		if (waitpid(-1, NULL, 0) < 0)
			pause();
}

/* The name of the session keyring, and whether it is this process's alone. */
static int keyring(void)
{
	char text[256];
	long id = syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
	if (id < 0)
		return printf("no session keyring: %s\n", name_of(errno)), 0;
	long length = syscall(SYS_keyctl, KEYCTL_DESCRIBE, id, text, sizeof text);
	if (length < 0)
		return printf("a session keyring that cannot be described: %s\n", name_of(errno)), 0;
	/* type;uid;gid;permissions;name */
	printf("%s\n", text);
	return 0;
}

/* Adds a key to the session keyring, or looks for it. */
static int key(const char *what, const char *name)
{
	long id;
	if (!strcmp(what, "add"))
		id = syscall(SYS_add_key, "user", name, "x", 1, KEY_SPEC_SESSION_KEYRING);
	else
		id = syscall(SYS_request_key, "user", name, NULL, 0);
	printf("%s key: %s\n", what, id < 0 ? name_of(errno) : "ok");
	return 0;
}

/* What a system call of this number says, without arguments that do anything. */
static int calls(int from, int to)
{
	for (int number = from; number <= to; number++) {
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			errno = 0;
			long result = syscall(number, -1L, -1L, -1L, -1L, -1L, -1L);
			_exit(result < 0 ? errno : 0);
		}
		int status = 0;
		waitpid(child, &status, 0);
		if (WIFSIGNALED(status))
			printf("%d killed by %d\n", number, WTERMSIG(status));
		else
			printf("%d %s\n", number, name_of(WEXITSTATUS(status)));
	}
	return 0;
}

/* Opens a file: its flags are the letters r, w, c. */
static int open_file(const char *path, const char *letters)
{
	int flags = O_RDONLY;
	if (strchr(letters, 'w'))
		flags = strchr(letters, 'r') ? O_RDWR : O_WRONLY;
	if (strchr(letters, 'c'))
		flags |= O_CREAT;
	int fd = open(path, flags | O_NONBLOCK | O_NOCTTY, 0600);
	printf("open %s %s: %s\n", path, letters, fd < 0 ? name_of(errno) : "ok");
	return 0;
}

/* Makes a device node. */
static int make_node(const char *path, const char *kind, int major_no, int minor_no)
{
	mode_t mode = (*kind == 'b' ? S_IFBLK : S_IFCHR) | 0600;
	int failed = mknod(path, mode, makedev(major_no, minor_no));
	printf("mknod %s %d:%d: %s\n", kind, major_no, minor_no, failed ? name_of(errno) : "ok");
	return 0;
}

/* Attributes of this process that /proc does not show or shows to few. */
static int attributes(void)
{
	struct utsname uts;
	uname(&uts);
	printf("dumpable %d\n", prctl(PR_GET_DUMPABLE));
	printf("keepcaps %d\n", prctl(PR_GET_KEEPCAPS));
	printf("securebits %x\n", prctl(PR_GET_SECUREBITS));
	printf("child subreaper ");
	int reaper = 0, death = 0;
	prctl(PR_GET_CHILD_SUBREAPER, &reaper);
	prctl(PR_GET_PDEATHSIG, &death);
	printf("%d\ndeath signal %d\n", reaper, death);
	printf("timer slack %d\n", prctl(PR_GET_TIMERSLACK));
	printf("personality %lx\n", (unsigned long)personality(0xffffffff));
	printf("machine %s\n", uts.machine);
	printf("nice %d\n", getpriority(PRIO_PROCESS, 0));
	printf("scheduler %d\n", sched_getscheduler(0));
	printf("io priority %ld\n", syscall(SYS_ioprio_get, 1, 0));
	printf("speculation %d %d\n", prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS),
	       prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_INDIRECT_BRANCH));
	printf("leads its session %d, its group %d\n", getsid(0) == getpid(), getpgrp() == getpid());
	printf("controlling terminal %s\n", open("/dev/tty", O_RDWR) >= 0 ? "yes" : name_of(errno));
	return 0;
}

/* Standard streams: what they are, whose, and whether they can be opened anew. */
static int streams(void)
{
	const char *names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr"};
	for (int fd = 0; fd < 3; fd++) {
		struct stat st;
		if (fstat(fd, &st)) {
			printf("%d %s\n", fd, name_of(errno));
			continue;
		}
		int again = open(names[fd], fd ? O_WRONLY : O_RDONLY | O_NONBLOCK);
		printf("%d type %o mode %o owner %d:%d terminal %d anew %s\n", fd,
		       st.st_mode & S_IFMT, st.st_mode & 07777, st.st_uid, st.st_gid, isatty(fd),
		       again < 0 ? name_of(errno) : "ok");
	}
	struct winsize size;
	if (!ioctl(0, TIOCGWINSZ, &size))
		printf("size %d rows %d columns\n", size.ws_row, size.ws_col);
	return 0;
}

/* Signals that are blocked and ignored, which a shell would change. */
static int signals(void)
{
	sigset_t blocked;
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	for (int number = 1; number < 65; number++) {
		struct sigaction action;
		if (sigismember(&blocked, number) == 1)
			printf("blocked %d\n", number);
		if (!sigaction(number, NULL, &action) && action.sa_handler == SIG_IGN)
			printf("ignored %d\n", number);
	}
	return 0;
}

/* File descriptors that were inherited. */
static int descriptors(void)
{
	for (int fd = 0; fd < 256; fd++) {
		char link[64], to[256];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t length = readlink(link, to, sizeof to - 1);
		if (length < 0)
			continue;
		to[length] = 0;
		char *number = strchr(to, ':');
		if (number)
			*number = 0;
		printf("%d %s\n", fd, to);
	}
	return 0;
}

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "wait";
	if (!strcmp(what, "wait"))
		wait_for_ever();
	if (!strcmp(what, "keyring"))
		return keyring();
	if (!strcmp(what, "key") && count > 3)
		return key(words[2], words[3]);
	if (!strcmp(what, "calls") && count > 3)
		return calls(atoi(words[2]), atoi(words[3]));
	if (!strcmp(what, "open") && count > 3)
		return open_file(words[2], words[3]);
	if (!strcmp(what, "mknod") && count > 5)
		return make_node(words[2], words[3], atoi(words[4]), atoi(words[5]));
	if (!strcmp(what, "attributes"))
		return attributes();
	if (!strcmp(what, "streams"))
		return streams();
	if (!strcmp(what, "signals"))
		return signals();
	if (!strcmp(what, "descriptors"))
		return descriptors();
	fprintf(stderr, "probe: what is %s?\n", what);
	return 64;
}
