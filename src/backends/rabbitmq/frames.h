#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "backends/rabbitmq/notice.h"
#include "core/error.h"

struct amqp_frame_t_;
struct amqp_rpc_reply_t_;

namespace relay::rabbitmq {

/// Puts what a broker sends together to notices: a message is a frame of its method, one of its
/// properties and any number with its body. One thread.
class FrameReader {
 public:
  /// Takes the next frame in; a notice where it completes one. `blocked` becomes the reason why the
  /// broker takes no messages, or empty when it does again. An error: the broker closes the
  /// connection.
  Result<std::optional<Notice>> add(const amqp_frame_t_& frame, const std::string& address,
                                    std::string& blocked);

  /// No message is in the middle of coming.
  bool between_notices() const { return !content_; }

 private:
  struct Content {
    Notice notice;  // Returned or Delivered
    std::size_t left = 0;
    bool has_properties = false;
  };

  Result<std::optional<Notice>> method(const amqp_frame_t_& frame, const std::string& address,
                                       std::string& blocked);
  void properties(const amqp_frame_t_& frame);
  void body(const amqp_frame_t_& frame);
  std::optional<Notice> finished();

  std::optional<Content> content_;
};

/// Why a call to the broker failed.
Error call_error(const amqp_rpc_reply_t_& reply, std::string_view doing, std::string_view address);

}  // namespace relay::rabbitmq
