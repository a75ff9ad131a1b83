#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "core/deadline.h"

namespace relay::admin {

// A client of raw bytes.
class Client {
 public:
  explicit Client(int port) : Client(port, ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  // `fd`: a socket that was made before.
  Client(int port, int fd) : fd_(fd) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() {
    if (fd_ >= 0) ::close(fd_);
  }

  bool connected() const { return connected_; }
  int descriptor() const { return fd_; }
  // The connection stays open when this ends.
  void release() { fd_ = -1; }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void end_sending() { ::shutdown(fd_, SHUT_WR); }

  // Everything up to the server's end of the connection.
  std::string read_all() {
    while (read_some()) {
    }
    return std::exchange(received_, {});
  }
  // One response with a Content-Length (without its body when `head`).
  std::string read_response(bool head = false) {
    while (true) {
      const std::size_t end = received_.find("\r\n\r\n");
      if (end != std::string::npos) {
        const std::size_t size = head ? end + 4 : end + 4 + content_length();
        if (received_.size() >= size) {
          std::string response = received_.substr(0, size);
          received_.erase(0, size);
          return response;
        }
      }
      if (!read_some()) return "<ended> " + received_;
    }
  }
  // True when the server ends the connection before the deadline.
  bool is_ended() {
    while (read_some()) {
    }
    return !timed_out_;
  }
  std::size_t unread() const { return received_.size(); }

 private:
  std::size_t content_length() const {
    const std::size_t at = received_.find("Content-Length: ");
    return at == std::string::npos ? 0 : std::stoul(received_.substr(at + 16));
  }
  bool read_some() {
    pollfd wait{fd_, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(deadline_.left().count())) != 1) {
      timed_out_ = true;
      return false;
    }
    std::array<char, 4096> buffer;
    const ssize_t size = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (size <= 0) return false;
    received_.append(buffer.data(), static_cast<std::size_t>(size));
    return true;
  }

  int fd_;
  bool connected_ = false;
  bool timed_out_ = false;
  Deadline deadline_ = Deadline::after(std::chrono::seconds(20));
  std::string received_;
};

}  // namespace relay::admin
