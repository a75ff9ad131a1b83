#include "cli/throwaway_postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <grp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "core/deadline.h"
#include "postgres/connection.h"

namespace relay::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::seconds kStartTimeout{30};
constexpr std::chrono::milliseconds kStopTimeout{10000};

Error no_postgres() {
  return {ErrorClass::misconfigured,
          "no_postgres",
          "no PostgreSQL server is installed here",
          "install one: apt-get install postgresql (or put initdb into PATH)",
          {}};
}

/// The newest directory that has initdb and postgres.
std::string find_programs() {
  std::vector<fs::path> candidates;
  std::error_code ignored;
  for (const auto& version : fs::directory_iterator("/usr/lib/postgresql", ignored)) {
    candidates.push_back(version.path() / "bin");
  }
  std::sort(candidates.rbegin(), candidates.rend(), [](const fs::path& a, const fs::path& b) {
    return std::atoi(a.parent_path().filename().c_str()) <
           std::atoi(b.parent_path().filename().c_str());
  });
  if (const char* path = std::getenv("PATH")) {
    for (std::string_view rest = path; !rest.empty();) {
      const auto end = std::min(rest.find(':'), rest.size());
      candidates.emplace_back(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
    }
  }
  for (const fs::path& candidate : candidates) {
    if (fs::exists(candidate / "initdb", ignored) && fs::exists(candidate / "postgres", ignored)) {
      return candidate;
    }
  }
  return {};
}

int free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  int port = 0;
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    port = ntohs(address.sin_port);
  }
  ::close(fd);
  return port;
}

/// PostgreSQL refuses to run as root; its package brings a user for it.
const passwd* server_user() {
  return ::geteuid() == 0 ? ::getpwnam("postgres") : nullptr;
}

/// Starts a program with its output in `log`, in a session of its own, so that the terminal's
/// interrupt reaches only us.
pid_t spawn(const std::vector<std::string>& arguments, const std::string& log) {
  const passwd* user = server_user();
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  ::setsid();
  if (user && (::initgroups(user->pw_name, user->pw_gid) != 0 || ::setgid(user->pw_gid) != 0 ||
               ::setuid(user->pw_uid) != 0)) {
    ::_exit(126);
  }
  ::prctl(PR_SET_PDEATHSIG, SIGINT);  // behind setuid, which would clear it
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, STDIN_FILENO);
  ::dup2(fd, STDOUT_FILENO);
  ::dup2(fd, STDERR_FILENO);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

/// The last lines of a program's log, for an error: the log is deleted with the directory.
std::string last_line(const std::string& log) {
  std::ifstream file(log);
  std::string last;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) last = std::move(line);
  }
  return last;
}

bool succeeded(pid_t pid) {
  int status = 0;
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

Result<std::string> make_directory(const std::string& wanted) {
  std::string path = wanted;
  if (path.empty()) {
    path = (fs::temp_directory_path() / "pgtrickle-quickstart-XXXXXX").string();
    if (!::mkdtemp(path.data())) path.clear();
  } else if (std::error_code error; !fs::create_directory(path, error)) {
    path.clear();
  }
  if (path.empty()) {
    return fail(ErrorClass::misconfigured, "directory",
                fmt::format("the directory {} cannot be made", wanted),
                "name one that does not exist, in a place where this user may write");
  }
  const passwd* user = server_user();
  if (user && ::chown(path.c_str(), user->pw_uid, user->pw_gid) != 0) {
    return fail(ErrorClass::misconfigured, "directory",
                fmt::format("the directory {} cannot be given to the user postgres", path));
  }
  return path;
}

}  // namespace

Result<std::unique_ptr<ThrowawayPostgres>> ThrowawayPostgres::start(
    const std::string& directory, const std::vector<std::string>& settings) {
  const std::string programs = find_programs();
  if (programs.empty()) return fail(no_postgres());
  auto made = make_directory(directory);
  if (!made) return fail(made.error());
  std::unique_ptr<ThrowawayPostgres> server(new ThrowawayPostgres);
  server->directory_ = *made;
  const std::string data = *made + "/data";
  const std::string log = *made + "/server.log";
  if (!succeeded(spawn({programs + "/initdb", "-D", data, "-U", "postgres", "-A", "trust",
                        "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"},
                       log))) {
    return fail(ErrorClass::misconfigured, "initdb",
                fmt::format("initdb failed in {}: {}", *made, last_line(log)),
                "as root, the user postgres must exist and be able to enter that directory; name "
                "another one with --directory");
  }
  server->port_ = free_port();
  std::vector<std::string> command{programs + "/postgres", "-D", data, "-p",
                                   std::to_string(server->port_)};
  for (const char* setting : {"listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off",
                              "max_connections=50"}) {
    command.insert(command.end(), {"-c", setting});
  }
  for (const std::string& setting : settings) command.insert(command.end(), {"-c", setting});
  server->pid_ = spawn(command, log);
  server->url_ = fmt::format("postgresql://postgres@127.0.0.1:{}/postgres", server->port_);
  postgres::Connection::Options options;
  options.url = server->url_;
  const Deadline deadline = Deadline::after(kStartTimeout);
  while (true) {
    auto connection = postgres::Connection::open(options, {});
    if (connection) return server;
    if (::waitpid(server->pid_, nullptr, WNOHANG) == server->pid_) {
      server->pid_ = 0;
      return fail(ErrorClass::transient, "postgres",
                  fmt::format("the server in {} ended: {}", *made, last_line(log)));
    }
    if (deadline.passed()) return fail(connection.error());
    ::usleep(50'000);
  }
}

ThrowawayPostgres::~ThrowawayPostgres() {
  if (pid_ > 0) {
    ::kill(pid_, SIGINT);  // fast shutdown
    const Deadline deadline = Deadline::after(kStopTimeout);
    while (::waitpid(pid_, nullptr, WNOHANG) == 0) {
      if (deadline.passed()) ::kill(pid_, SIGQUIT);
      ::usleep(20'000);
    }
  }
  std::error_code ignored;
  if (!directory_.empty()) fs::remove_all(directory_, ignored);
}

}  // namespace relay::cli
