/* init.c: process 1 of the emulated machine. Mounts what a program expects, loads the
 * module that turns AVX on, runs /run.sh, reports its exit status on the serial line
 * and reboots, which ends the emulator. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
    int serial = open("/dev/ttyS0", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(serial, fd);
    int module = open("/avx_on.ko", O_RDONLY | O_CLOEXEC);
    if (syscall(SYS_finit_module, module, "", 0) != 0) perror("avx_on.ko");
    close(module);

    pid_t child = fork();
    if (child == 0) {
        /* Upper register halves survive a switch only while one thread uses them: avx_on.c. */
        setenv("OMP_THREAD_LIMIT", "1", 1);
        execl("/bin/sh", "sh", "/run.sh", (char *)NULL);
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    printf("\nEMULATED EXIT %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    fflush(stdout);
    sleep(1);
    reboot(RB_AUTOBOOT);
    return 1;
}
