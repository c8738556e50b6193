"""Names that a typed C++ header cannot give to what a user named so."""

from __future__ import annotations

import re

KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        """
    alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class co_await
    co_return co_yield compl concept const consteval constexpr constinit const_cast continue decltype default delete do
    double dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable
    namespace new noexcept not not_eq nullptr operator or or_eq private protected public register reinterpret_cast
    requires return short signed sizeof static static_assert static_cast struct switch template this thread_local throw
    true try typedef typeid typename union unsigned using virtual void volatile wchar_t while xor xor_eq
    """,
    )
)
"""Of C++20, and the alternative spellings of operators."""

MACROS = frozenset(
    re.findall(
        r"\w+",
        """
    linux unix errno stdin stdout stderr assert NULL EOF NAN INFINITY HUGE_VAL BUFSIZ RAND_MAX
    """,
    )
)
"""What GNU C++ predefines, and the headers that ours includes define, in letters that a user may choose."""

GLOBALS = frozenset(
    re.findall(
        r"\w+",
        """
    abort abs access acct acos acosf acosh acoshf acoshl acosl alarm alloca asctime asin asinf asinh asinhf asinhl asinl
    asprintf atan atan2 atanf atanh atanhf atanhl atanl atexit atof atoi atol atoll bcmp bcopy brk bsearch btowc bzero
    calloc canonicalize canonicalizef canonicalizel cbrt cbrtf cbrtl ceil ceilf ceill chdir chown chroot clearenv
    clearerr clock clone close closefrom confstr copysign copysignf copysignl cos cosf cosh coshf coshl cosl crypt
    ctermid ctime cuserid daddl daemon daylight ddivl dfmal difftime div dmull dprintf drem dremf dreml dsqrtl dsubl dup
    dup2 dup3 duplocale dysize eaccess ecvt endusershell environ erf erfc erfcf erfcl erff erfl euidaccess execl execle
    execlp execv execve execveat execvp execvpe exit exp exp2 expf expl expm1 fabs fabsf fabsl faccessat fadd faddl
    fchdir fchown fchownat fclose fcloseall fcvt fdatasync fdim fdimf fdiml fdiv fdivl fdopen feof ferror fexecve fflush
    ffma ffmal ffs ffsl ffsll fgetc fgetpos fgets fgetwc fgetws fileno finite finitef finitel flockfile floor floorf
    floorl fma fmaf fmal fmax fmaxf fmaximum fmaximumf fmaximuml fmaxl fmaxmag fmaxmagf fmaxmagl fmemopen fmin fminf
    fminimum fminimumf fminimuml fminl fminmag fminmagf fminmagl fmod fmodf fmodl fmul fmull fopen fopencookie fork
    fpathconf fprintf fputc fputs fputwc fputws fread free freelocale freopen frexp frexpf frexpl fromfp fromfpf fromfpl
    fromfpx fromfpxf fromfpxl fscanf fseek fseeko fsetpos fsqrt fsqrtl fsub fsubl fsync ftell ftello ftruncate
    ftrylockfile funlockfile fwide fwprintf fwrite fwscanf gamma gammaf gammal gcvt getc getchar getcpu getcwd getdate
    getdelim getdomainname getdtablesize getegid getentropy getenv geteuid getgid getgroups gethostid gethostname
    getline getloadavg getlogin getopt getpagesize getpass getpayload getpayloadf getpayloadl getpgid getpgrp getpid
    getppid getpt getresgid getresuid getsid getsubopt gettid getuid getusershell getw getwc getwchar getwd gmtime
    grantpt gsignal hypot hypotf hypotl ilogb ilogbf ilogbl index initstate isalnum isalpha isascii isatty isblank
    iscanonical iscntrl isctype isdigit iseqsig isgraph isinf isinff isinfl islower isnan isnanf isnanl isprint ispunct
    issignaling isspace isupper isxdigit iszero itimerspec j0 j1 jn jnf jnl kill killpg labs lchown lconv ldexp ldexpf
    ldexpl ldiv lgamma lgammaf lgammal link linkat llabs lldiv llogb llogbf llogbl llrint llrintf llrintl llround
    llroundf llroundl localeconv localtime lockf log log2 logb logbf logbl logf logl lrint lrintf lrintl lround lroundf
    lroundl lseek malloc mblen mbrlen mbrtowc mbsinit mbsnrtowcs mbsrtowcs mbstowcs mbtowc memcmp mkdtemp mkostemp
    mkostemps mkstemp mkstemps mktemp mktime modf modff modfl nan nanf nanl nanosleep nearbyint nearbyintf nearbyintl
    newlocale nextafter nextafterf nextafterl nextdown nextdownf nextdownl nexttoward nexttowardf nexttowardl nextup
    nextupf nextupl nice obstack optarg opterr optind optopt pathconf pause pclose perror pipe pipe2 popen pow powf powl
    pread printf profil pselect psiginfo psignal ptsname putc putchar putenv puts putw putwc putwchar pwrite qecvt qfcvt
    qgcvt qsort raise rand random read readlink readlinkat realloc reallocarray realpath remainder remainderf remainderl
    remove remquo remquof remquol rename renameat renameat2 revoke rewind rindex rint rintf rintl rmdir round roundeven
    roundevenf roundevenl roundf roundl rpmatch sbrk scalb scalbf scalbl scalbln scalblnf scalblnl scalbn scalbnf
    scalbnl scanf select setbuf setbuffer setdomainname setegid setenv seteuid setgid sethostid sethostname setlinebuf
    setlocale setlogin setns setpayload setpayloadf setpayloadl setpayloadsig setpayloadsigf setpayloadsigl setpgid
    setpgrp setregid setresgid setresuid setreuid setsid setstate setuid setusershell setvbuf sigaction sigaddset
    sigaltstack sigandset sigblock sigcontext sigdelset sigemptyset sigevent sigfillset siggetmask sighold sigignore
    siginterrupt sigisemptyset sigismember signal signbit signgam significand significandf significandl sigorset
    sigpause sigpending sigprocmask sigqueue sigrelse sigreturn sigset sigsetmask sigstack sigsuspend sigtimedwait
    sigval sigwait sigwaitinfo sin sincos sincosf sincosl sinf sinh sinhf sinhl sinl sleep snprintf sprintf sqrt sqrtf
    sqrtl srand srandom sscanf ssignal strcasecmp strfromd strfromf strfroml strftime strncasecmp strptime strtod strtof
    strtol strtold strtoll strtoq strtoul strtoull strtouq swab swprintf swscanf symlink symlinkat sync syncfs syscall
    sysconf system tan tanf tanh tanhf tanhl tanl tcgetpgrp tcsetpgrp tgamma tgammaf tgammal tgkill time timegm
    timelocal timespec timeval timex timezone tm tmpfile tmpnam toascii tolower totalorder totalorderf totalorderl
    totalordermag totalordermagf totalordermagl toupper trunc truncate truncf truncl ttyname ttyslot tzname tzset ualarm
    ufromfp ufromfpf ufromfpl ufromfpx ufromfpxf ufromfpxl uint ulong ungetc ungetwc unlink unlinkat unlockpt unsetenv
    unshare uselocale ushort usleep valloc vasprintf vdprintf vfork vfprintf vfscanf vfwprintf vfwscanf vhangup vprintf
    vscanf vsnprintf vsprintf vsscanf vswprintf vswscanf vwprintf vwscanf wcpcpy wcpncpy wcrtomb wcscasecmp wcscat
    wcschr wcschrnul wcscmp wcscoll wcscpy wcscspn wcsdup wcsftime wcslen wcsncasecmp wcsncat wcsncmp wcsncpy wcsnlen
    wcsnrtombs wcspbrk wcsrchr wcsrtombs wcsspn wcsstr wcstod wcstof wcstok wcstol wcstold wcstoll wcstombs wcstoq
    wcstoul wcstoull wcstouq wcswcs wcswidth wcsxfrm wctob wctomb wcwidth wmemchr wmemcmp wmemcpy wmemmove wmempcpy
    wmemset wprintf write wscanf y0 y1 yn ynf ynl
    """,
    )
)
"""Functions and types that glibc declares outside any namespace in the headers of C++17's C library, unistd.h and strings.h, of
letters and a last digit: a namespace cannot share their names."""
