#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <nats/nats.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace relay::nats {

inline bool eventually(const std::function<bool()>& predicate,
                       std::chrono::milliseconds deadline = std::chrono::seconds(15)) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!predicate()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

/// A throw-away nats-server with JetStream on loopback, with its own store. Ended by its own pid.
class Server {
 public:
  static bool available() { return std::system("command -v nats-server >/dev/null 2>&1") == 0; }

  /// `config` may use the directory as %DIR%.
  explicit Server(std::string config = {}) : port_(free_port()) {
    char form[] = "/tmp/relay-nats-XXXXXX";
    directory_ = ::mkdtemp(form);
    for (std::size_t at; (at = config.find("%DIR%")) != std::string::npos;) {
      config.replace(at, 5, directory_.string());
    }
    std::ofstream(directory_ / "nats.conf")
        << "listen: \"" << address() << "\"\nserver_name: \"unit-" << port_
        << "\"\njetstream { store_dir: \"" << directory_.string()
        << "/store\", max_mem: 64MB, max_file: 4GB }\n"
        << config << "\n";
  }
  ~Server() {
    end(SIGKILL);
    std::filesystem::remove_all(directory_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Returns when the server greets.
  Server& start() {
    const std::string config = (directory_ / "nats.conf").string();
    const std::string log = (directory_ / "nats.log").string();
    pid_ = ::fork();
    if (pid_ == 0) {
      const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
      ::dup2(out, 1);
      ::dup2(out, 2);
      ::execlp("nats-server", "nats-server", "-c", config.c_str(), nullptr);
      ::_exit(127);
    }
    if (!eventually([&] { return greets(); })) throw std::runtime_error("nats-server: see " + log);
    return *this;
  }
  void stop() { end(SIGTERM); }
  void kill9() { end(SIGKILL); }
  /// Returns when it has stopped: until then it answers.
  void freeze() {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  void thaw() { ::kill(pid_, SIGCONT); }

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  static sockaddr_in local(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  static int free_port() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = local(0);
    socklen_t size = sizeof address;
    ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
    ::close(fd);
    return ntohs(address.sin_port);
  }
  bool greets() const {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = local(port_);
    char greeting[5] = {};
    bool good = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    pollfd wait{fd, POLLIN, 0};
    good = good && ::poll(&wait, 1, 1000) == 1 && ::read(fd, greeting, 5) == 5;
    ::close(fd);
    return good && std::string(greeting, 5) == "INFO ";
  }
  void end(int number) {
    if (pid_ == 0) return;
    ::kill(pid_, SIGCONT);
    ::kill(pid_, number);
    // Its shutdown may hang: that is no reason for the test to do so.
    if (!eventually([&] { return ::waitpid(pid_, nullptr, WNOHANG) != 0; })) {
      ::kill(pid_, SIGKILL);
      ::waitpid(pid_, nullptr, 0);
    }
    pid_ = 0;
  }

  int port_;
  std::filesystem::path directory_;
  pid_t pid_ = 0;
};

/// What a stream holds, looked at over a connection of its own.
struct Stored {
  std::string subject;
  std::string body;
  std::map<std::string, std::string> headers;
};

class Inspector {
 public:
  explicit Inspector(const std::string& url) {
    natsOptions* options = nullptr;
    natsOptions_Create(&options);
    natsOptions_SetURL(options, url.c_str());
    check(natsConnection_Connect(&connection_, options), "connect");
    natsOptions_Destroy(options);
    check(natsConnection_JetStream(&context_, connection_, nullptr), "jetstream");
  }
  explicit Inspector(const Server& server) : Inspector("nats://" + server.address()) {}
  ~Inspector() {
    jsCtx_Destroy(context_);
    natsConnection_Destroy(connection_);
  }
  Inspector(const Inspector&) = delete;
  Inspector& operator=(const Inspector&) = delete;

  void make_stream(const std::string& name, const char* subject, std::int64_t max_messages = -1,
                   std::int32_t max_message_size = -1) {
    jsStreamConfig config;
    jsStreamConfig_Init(&config);
    config.Name = name.c_str();
    config.Subjects = &subject;
    config.SubjectsLen = 1;
    config.MaxMsgs = max_messages;
    config.MaxMsgSize = max_message_size;
    if (max_messages > 0) config.Discard = js_DiscardNew;
    check(js_AddStream(nullptr, context_, &config, nullptr, nullptr), "make stream");
  }
  void purge(const std::string& name) {
    check(js_PurgeStream(context_, name.c_str(), nullptr, nullptr), "purge");
  }
  std::uint64_t count(const std::string& stream) {
    jsStreamInfo* info = nullptr;
    check(js_GetStreamInfo(&info, context_, stream.c_str(), nullptr, nullptr), "info");
    const std::uint64_t messages = info->State.Msgs;
    jsStreamInfo_Destroy(info);
    return messages;
  }
  std::vector<Stored> messages(const std::string& stream) {
    std::vector<Stored> all;
    natsSubscription* subscription = nullptr;
    jsSubOptions options;
    jsSubOptions_Init(&options);
    options.Stream = stream.c_str();
    options.Ordered = true;
    check(js_SubscribeSync(&subscription, context_, ">", nullptr, &options, nullptr), "subscribe");
    for (std::uint64_t left = count(stream); left > 0; --left) {
      natsMsg* message = nullptr;
      check(natsSubscription_NextMsg(&message, subscription, 5000), "next message");
      all.push_back(read(message));
      natsMsg_Destroy(message);
    }
    natsSubscription_Destroy(subscription);
    return all;
  }

 private:
  static Stored read(natsMsg* message) {
    Stored stored{natsMsg_GetSubject(message),
                  std::string(natsMsg_GetData(message),
                              static_cast<std::size_t>(natsMsg_GetDataLength(message))),
                  {}};
    const char** keys = nullptr;
    int count = 0;
    if (natsMsgHeader_Keys(message, &keys, &count) == NATS_OK) {
      for (int i = 0; i < count; ++i) {
        const char* value = nullptr;
        natsMsgHeader_Get(message, keys[i], &value);
        stored.headers[keys[i]] = value;
      }
      std::free(static_cast<void*>(keys));
    }
    return stored;
  }
  static void check(natsStatus status, const char* doing) {
    if (status == NATS_OK) return;
    const char* detail = nats_GetLastError(nullptr);
    throw std::runtime_error(std::string(doing) + ": " + natsStatus_GetText(status) + " " +
                             (detail == nullptr ? "" : detail));
  }

  natsConnection* connection_ = nullptr;
  jsCtx* context_ = nullptr;
};

}  // namespace relay::nats
