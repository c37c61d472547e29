/* Runs in the containers of these tests.
 *
 * swap A B COUNT   exchanges two names all the time and counts it in a file
 * take FD          tries to open the program behind a descriptor for writing
 * watch REPORT     does so with the program of every process that it sees
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void note(int fd, const char *text) {
    char line[256];
    memset(line, ' ', sizeof line);
    memcpy(line, text, strnlen(text, sizeof line));
    if (pwrite(fd, line, sizeof line, 0) < 0) exit(3);
}

static void swap(const char *one, const char *other, const char *count) {
    int fd = open(count, O_WRONLY | O_CREAT, 0644);
    unsigned random = 0x9e3779b9;
    for (unsigned long n = 0;;) {
        /* Refused for the moment in which a mount is on one of them. */
        if (syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2) == 0) {
            char text[32];
            snprintf(text, sizeof text, "%lu", ++n);
            note(fd, text);
        }
        random ^= random << 13, random ^= random >> 17, random ^= random << 5;
        /* The runtime is to come forward too, on a machine with few processors. */
        struct timespec pause = {0, random % 4 ? random % 4000 : random % 200000};
        nanosleep(&pause, NULL);
    }
}

/* Writes behind the end, so that a program that was hit still runs to tell. */
static int overwrite(const char *path) {
    int fd = open(path, O_WRONLY | O_APPEND);
    if (fd < 0) return 0;
    return write(fd, "owned", 5) == 5;
}

static int take(const char *number) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%s", number);
    for (int n = 0; n < 20; n++)
        if (overwrite(path)) {
            puts("BREACH: overwrote the runtime");
            return 1;
        }
    printf("the runtime's program: %s\n", strerror(errno));
    return 0;
}

static int watch(const char *report) {
    int fd = open(report, O_WRONLY | O_CREAT, 0644);
    struct stat own;
    if (stat("/proc/self/exe", &own)) return 3;
    for (unsigned long seen = 0, refused = 0;;) {
        DIR *all = opendir("/proc");
        for (struct dirent *one; all && (one = readdir(all));) {
            char path[300], name[300];
            struct stat it;
            ssize_t len;
            if (one->d_name[0] < '1' || one->d_name[0] > '9') continue;
            snprintf(path, sizeof path, "/proc/%.20s/exe", one->d_name);
            if ((len = readlink(path, name, sizeof name - 1)) < 0) continue;
            name[len] = 0;
            /* Programs of images it may overwrite. */
            if (!strstr(name, "reprise") || stat(path, &it)) continue;
            seen++;
            int breach = overwrite(path);
            refused += !breach && errno == EROFS;
            char text[128];
            snprintf(text, sizeof text, "%sseen %lu, read-only %lu", breach ? "BREACH " : "", seen,
                     refused);
            note(fd, text);
            if (breach) return 1;
        }
        closedir(all);
    }
}

int main(int argc, char **argv) {
    if (argc == 5 && !strcmp(argv[1], "swap")) swap(argv[2], argv[3], argv[4]);
    if (argc == 3 && !strcmp(argv[1], "take")) return take(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "watch")) return watch(argv[2]);
    return 2;
}
