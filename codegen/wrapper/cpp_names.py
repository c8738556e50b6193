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
    a64l abort abs access acct acos acosf acosh acoshf acoshl acosl alarm alloca arc4random asctime asin asinf asinh
    asinhf asinhl asinl asprintf atan atan2 atan2f atan2l atanf atanh atanhf atanhl atanl atexit atof atoi atol atoll
    basename bcmp bcopy bindtextdomain brk bsearch btowc bzero c16rtomb c32rtomb c8rtomb calloc canonicalize
    canonicalizef canonicalizel cbrt cbrtf cbrtl ceil ceilf ceill chdir chown chroot clearenv clearerr clock clone close
    closefrom confstr copysign copysignf copysignl cos cosf cosh coshf coshl cosl crypt ctermid ctime cuserid daddl
    daemon daylight dcgettext dcngettext ddivl dfmal dgettext difftime div dmull dngettext dprintf drand48 drem dremf
    dreml dsqrtl dsubl dup dup2 dup3 duplocale dysize eaccess ecvt endusershell environ erand48 erf erfc erfcf erfcl
    erff erfl euidaccess execl execle execlp execv execve execveat execvp execvpe exit exp exp10 exp10f exp10l exp2
    exp2f exp2l expf expl expm1 expm1f expm1l fabs fabsf fabsl faccessat fadd faddl fchdir fchown fchownat fclose
    fcloseall fcvt fdatasync fdim fdimf fdiml fdiv fdivl fdopen feclearexcept fedisableexcept feenableexcept fegetenv
    fegetexcept fegetexceptflag fegetmode fegetround feholdexcept feof feraiseexcept ferror fesetenv fesetexcept
    fesetexceptflag fesetmode fesetround fetestexcept fetestexceptflag feupdateenv fexecve fflush ffma ffmal ffs ffsl
    ffsll fgetc fgetpos fgetpos64 fgets fgetwc fgetws fileno finite finitef finitel flockfile floor floorf floorl fma
    fmaf fmal fmax fmaxf fmaximum fmaximumf fmaximuml fmaxl fmaxmag fmaxmagf fmaxmagl fmemopen fmin fminf fminimum
    fminimumf fminimuml fminl fminmag fminmagf fminmagl fmod fmodf fmodl fmul fmull fopen fopen64 fopencookie fork
    fpathconf fprintf fputc fputs fputwc fputws fread free freelocale freopen freopen64 frexp frexpf frexpl fromfp
    fromfpf fromfpl fromfpx fromfpxf fromfpxl fscanf fseek fseeko fseeko64 fsetpos fsetpos64 fsqrt fsqrtl fsub fsubl
    fsync ftell ftello ftello64 ftruncate ftruncate64 ftrylockfile funlockfile fwide fwprintf fwrite fwscanf gamma
    gammaf gammal gcvt getc getchar getcpu getcwd getdate getdelim getdomainname getdtablesize getegid getentropy getenv
    geteuid getgid getgroups gethostid gethostname getline getloadavg getlogin getopt getpagesize getpass getpayload
    getpayloadf getpayloadl getpgid getpgrp getpid getppid getpt getresgid getresuid getsid getsubopt gettext gettid
    getuid getusershell getw getwc getwchar getwd gmtime grantpt gsignal hypot hypotf hypotl ilogb ilogbf ilogbl imaxabs
    imaxdiv index initstate isalnum isalpha isascii isatty isblank iscanonical iscntrl isctype isdigit iseqsig isgraph
    isinf isinff isinfl islower isnan isnanf isnanl isprint ispunct issignaling isspace isupper iswalnum iswalpha
    iswblank iswcntrl iswctype iswdigit iswgraph iswlower iswprint iswpunct iswspace iswupper iswxdigit isxdigit iszero
    itimerspec j0 j0f j0l j1 j1f j1l jn jnf jnl jrand48 kill killpg l64a labs lchown lcong48 lconv ldexp ldexpf ldexpl
    ldiv lgamma lgammaf lgammal link linkat llabs lldiv llogb llogbf llogbl llrint llrintf llrintl llround llroundf
    llroundl localeconv localtime lockf log log10 log10f log10l log1p log1pf log1pl log2 log2f log2l logb logbf logbl
    logf logl longjmp lrand48 lrint lrintf lrintl lround lroundf lroundl lseek lseek64 malloc mblen mbrlen mbrtoc16
    mbrtoc32 mbrtoc8 mbrtowc mbsinit mbsnrtowcs mbsrtowcs mbstowcs mbtowc memccpy memchr memcmp memcpy memfrob memmem
    memmove mempcpy memrchr memset mkdtemp mkostemp mkostemp64 mkostemps mkostemps64 mkstemp mkstemp64 mkstemps
    mkstemps64 mktemp mktime modf modff modfl mrand48 nan nanf nanl nanosleep nearbyint nearbyintf nearbyintl newlocale
    nextafter nextafterf nextafterl nextdown nextdownf nextdownl nexttoward nexttowardf nexttowardl nextup nextupf
    nextupl ngettext nice nrand48 obstack optarg opterr optind optopt pathconf pause pclose perror pipe pipe2 popen pow
    powf powl pread pread64 printf profil pselect psiginfo psignal ptsname putc putchar putenv puts putw putwc putwchar
    pwrite pwrite64 qecvt qfcvt qgcvt qsort raise rand random rawmemchr read readlink readlinkat realloc reallocarray
    realpath remainder remainderf remainderl remove remquo remquof remquol rename renameat renameat2 revoke rewind
    rindex rint rintf rintl rmdir round roundeven roundevenf roundevenl roundf roundl rpmatch sbrk scalb scalbf scalbl
    scalbln scalblnf scalblnl scalbn scalbnf scalbnl scanf seed48 select setbuf setbuffer setdomainname setegid setenv
    seteuid setgid sethostid sethostname setjmp setlinebuf setlocale setlogin setns setpayload setpayloadf setpayloadl
    setpayloadsig setpayloadsigf setpayloadsigl setpgid setpgrp setregid setresgid setresuid setreuid setsid setstate
    setuid setusershell setvbuf sigaction sigaddset sigaltstack sigandset sigblock sigcontext sigdelset sigemptyset
    sigevent sigfillset siggetmask sighold sigignore siginterrupt sigisemptyset sigismember siglongjmp signal signbit
    signgam significand significandf significandl sigorset sigpause sigpending sigprocmask sigqueue sigrelse sigreturn
    sigset sigsetmask sigstack sigsuspend sigtimedwait sigval sigwait sigwaitinfo sin sincos sincosf sincosl sinf sinh
    sinhf sinhl sinl sleep snprintf sprintf sqrt sqrtf sqrtl srand srand48 srandom sscanf ssignal stpcpy stpncpy
    strcasecmp strcasestr strcat strchr strchrnul strcmp strcoll strcpy strcspn strdup strerror strfromd strfromf
    strfroml strfry strftime strlen strncasecmp strncat strncmp strncpy strndup strnlen strpbrk strptime strrchr strsep
    strsignal strspn strstr strtod strtof strtoimax strtok strtol strtold strtoll strtoq strtoul strtoull strtoumax
    strtouq strverscmp strxfrm swab swprintf swscanf symlink symlinkat sync syncfs syscall sysconf system tan tanf tanh
    tanhf tanhl tanl tcgetpgrp tcsetpgrp tempnam textdomain tgamma tgammaf tgammal tgkill time timegm timelocal timespec
    timeval timex timezone tm tmpfile tmpfile64 tmpnam toascii tolower totalorder totalorderf totalorderl totalordermag
    totalordermagf totalordermagl toupper towctrans towlower towupper trunc truncate truncate64 truncf truncl ttyname
    ttyslot tzname tzset ualarm ufromfp ufromfpf ufromfpl ufromfpx ufromfpxf ufromfpxl uint ulong ungetc ungetwc unlink
    unlinkat unlockpt unsetenv unshare uselocale ushort usleep valloc vasprintf vdprintf vfork vfprintf vfscanf
    vfwprintf vfwscanf vhangup vprintf vscanf vsnprintf vsprintf vsscanf vswprintf vswscanf vwprintf vwscanf wcpcpy
    wcpncpy wcrtomb wcscasecmp wcscat wcschr wcschrnul wcscmp wcscoll wcscpy wcscspn wcsdup wcsftime wcslen wcsncasecmp
    wcsncat wcsncmp wcsncpy wcsnlen wcsnrtombs wcspbrk wcsrchr wcsrtombs wcsspn wcsstr wcstod wcstof wcstoimax wcstok
    wcstol wcstold wcstoll wcstombs wcstoq wcstoul wcstoull wcstoumax wcstouq wcswcs wcswidth wcsxfrm wctob wctomb
    wctrans wctype wcwidth wmemchr wmemcmp wmemcpy wmemmove wmempcpy wmemset wprintf write wscanf y0 y0f y0l y1 y1f y1l
    yn ynf ynl
    """,
    )
)
"""Functions and types that glibc declares outside any namespace in the headers of C++17's C library, unistd.h and strings.h, of
lower-case letters and digits: a namespace cannot share their names."""
