/* Tells whether its set-user-ID bit had an effect, as critest's nonewprivs image does. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	return printf("Effective uid: %d\n", (int)geteuid()) < 0;
}
