/*
 * The first process of a pod's sandbox: holds the namespaces, reaps what is orphaned
 * into a shared pid namespace, and ends when told to.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal)
{
	(void)signal;
	_exit(0);
}

static void reap(int signal)
{
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	struct sigaction ends = {.sa_handler = end}, reaps = {.sa_handler = reap};

	reaps.sa_flags = SA_NOCLDSTOP;
	if (sigaction(SIGINT, &ends, NULL) || sigaction(SIGTERM, &ends, NULL) ||
	    sigaction(SIGCHLD, &reaps, NULL))
		return 1;
	for (;;)
		pause();
}
