#include "backends/rabbitmq/frames.h"

#include <fmt/format.h>

#include <utility>

#include "backends/rabbitmq/client_library.h"
#include "backends/rabbitmq/errors.h"

namespace relay::rabbitmq {

namespace {

std::string_view view(amqp_bytes_t bytes) {
  return {static_cast<const char*>(bytes.bytes), bytes.len};
}

std::string text(amqp_bytes_t bytes) {
  return std::string(view(bytes));
}

bool is_publish(std::uint16_t class_id, std::uint16_t method_id) {
  constexpr std::uint32_t kPublish = AMQP_BASIC_PUBLISH_METHOD;
  return (static_cast<std::uint32_t>(class_id) << 16 | method_id) == kPublish;
}

/// A header's value as text; tables and arrays, which no mapping can name, are left out.
std::optional<std::string> as_text(const amqp_field_value_t& value) {
  switch (value.kind) {
    case AMQP_FIELD_KIND_BOOLEAN:
      return value.value.boolean != 0 ? "true" : "false";
    case AMQP_FIELD_KIND_I8:
      return std::to_string(value.value.i8);
    case AMQP_FIELD_KIND_U8:
      return std::to_string(value.value.u8);
    case AMQP_FIELD_KIND_I16:
      return std::to_string(value.value.i16);
    case AMQP_FIELD_KIND_U16:
      return std::to_string(value.value.u16);
    case AMQP_FIELD_KIND_I32:
      return std::to_string(value.value.i32);
    case AMQP_FIELD_KIND_U32:
      return std::to_string(value.value.u32);
    case AMQP_FIELD_KIND_I64:
      return std::to_string(value.value.i64);
    case AMQP_FIELD_KIND_U64:
    case AMQP_FIELD_KIND_TIMESTAMP:
      return std::to_string(value.value.u64);
    case AMQP_FIELD_KIND_F32:
      return fmt::to_string(value.value.f32);
    case AMQP_FIELD_KIND_F64:
      return fmt::to_string(value.value.f64);
    case AMQP_FIELD_KIND_UTF8:
    case AMQP_FIELD_KIND_BYTES:
      return text(value.value.bytes);
    default:
      return std::nullopt;
  }
}

std::int64_t whole_number(const amqp_field_value_t& value, std::int64_t otherwise) {
  return value.kind == AMQP_FIELD_KIND_I64 ? value.value.i64 : otherwise;
}

void read_properties(const amqp_basic_properties_t& from, Delivered& to) {
  if ((from._flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0) to.message_id = text(from.message_id);
  if ((from._flags & AMQP_BASIC_CONTENT_TYPE_FLAG) != 0) to.content_type = text(from.content_type);
  if ((from._flags & AMQP_BASIC_TIMESTAMP_FLAG) != 0) {
    to.timestamp = static_cast<std::int64_t>(from.timestamp);
  }
  if ((from._flags & AMQP_BASIC_HEADERS_FLAG) == 0) return;
  for (int i = 0; i < from.headers.num_entries; ++i) {
    const amqp_table_entry_t& entry = from.headers.entries[i];
    if (auto value = as_text(entry.value)) to.headers.emplace_back(text(entry.key), *value);
    if (view(entry.key) == "x-stream-offset") to.stream_offset = whole_number(entry.value, -1);
    if (view(entry.key) == "x-delivery-count") to.delivery_count = whole_number(entry.value, 0);
  }
}

}  // namespace

Result<std::optional<Notice>> FrameReader::add(const amqp_frame_t_& frame,
                                               const std::string& address, std::string& blocked) {
  if (frame.frame_type == AMQP_FRAME_METHOD) return method(frame, address, blocked);
  if (!content_) return std::optional<Notice>();
  if (frame.frame_type == AMQP_FRAME_HEADER) properties(frame);
  if (frame.frame_type == AMQP_FRAME_BODY) body(frame);
  return finished();
}

Result<std::optional<Notice>> FrameReader::method(const amqp_frame_t_& frame,
                                                  const std::string& address,
                                                  std::string& blocked) {
  const void* const decoded = frame.payload.method.decoded;
  switch (frame.payload.method.id) {
    case AMQP_BASIC_ACK_METHOD: {
      const auto& ack = *static_cast<const amqp_basic_ack_t*>(decoded);
      return Notice(Confirm{ack.delivery_tag, ack.multiple != 0, true});
    }
    case AMQP_BASIC_NACK_METHOD: {
      const auto& nack = *static_cast<const amqp_basic_nack_t*>(decoded);
      return Notice(Confirm{nack.delivery_tag, nack.multiple != 0, false});
    }
    case AMQP_BASIC_RETURN_METHOD: {
      const auto& returned = *static_cast<const amqp_basic_return_t*>(decoded);
      content_.emplace(
          Content{Returned{{}, text(returned.exchange), text(returned.routing_key)}, 0, false});
      return std::optional<Notice>();
    }
    case AMQP_BASIC_DELIVER_METHOD: {
      const auto& deliver = *static_cast<const amqp_basic_deliver_t*>(decoded);
      Delivered message;
      message.tag = deliver.delivery_tag;
      message.redelivered = deliver.redelivered != 0;
      message.exchange = text(deliver.exchange);
      message.routing_key = text(deliver.routing_key);
      content_.emplace(Content{std::move(message), 0, false});
      return std::optional<Notice>();
    }
    case AMQP_BASIC_CANCEL_METHOD:
      return Notice(ConsumerCancelled{});
    case AMQP_CHANNEL_CLOSE_METHOD: {
      const auto& closed = *static_cast<const amqp_channel_close_t*>(decoded);
      const bool by_publish = is_publish(closed.class_id, closed.method_id);
      return Notice(
          ChannelClosed{closed.reply_code, by_publish,
                        closed_by_broker(closed.reply_code, view(closed.reply_text),
                                         by_publish ? "publishing" : "the channel", address)});
    }
    case AMQP_CONNECTION_CLOSE_METHOD: {
      const auto& closed = *static_cast<const amqp_connection_close_t*>(decoded);
      return fail(
          closed_by_broker(closed.reply_code, view(closed.reply_text), "the connection", address));
    }
    case AMQP_CONNECTION_BLOCKED_METHOD:
      blocked = text(static_cast<const amqp_connection_blocked_t*>(decoded)->reason);
      if (blocked.empty()) blocked = "no reason given";
      return std::optional<Notice>();
    case AMQP_CONNECTION_UNBLOCKED_METHOD:
      blocked.clear();
      return std::optional<Notice>();
    default:
      return std::optional<Notice>();
  }
}

void FrameReader::properties(const amqp_frame_t_& frame) {
  const auto& properties =
      *static_cast<const amqp_basic_properties_t*>(frame.payload.properties.decoded);
  content_->has_properties = true;
  content_->left = static_cast<std::size_t>(frame.payload.properties.body_size);
  if (auto* message = std::get_if<Delivered>(&content_->notice)) {
    read_properties(properties, *message);
  } else if ((properties._flags & AMQP_BASIC_MESSAGE_ID_FLAG) != 0) {
    std::get<Returned>(content_->notice).message_id = text(properties.message_id);
  }
}

void FrameReader::body(const amqp_frame_t_& frame) {
  const auto part = view(frame.payload.body_fragment);
  content_->left -= std::min(content_->left, part.size());
  if (auto* message = std::get_if<Delivered>(&content_->notice)) message->body.append(part);
}

std::optional<Notice> FrameReader::finished() {
  if (!content_->has_properties || content_->left > 0) return std::nullopt;
  Notice notice = std::move(content_->notice);
  content_.reset();
  return notice;
}

Error call_error(const amqp_rpc_reply_t_& reply, std::string_view doing, std::string_view address) {
  if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION) {
    return library_error(reply.library_error, doing, address);
  }
  if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION) {
    if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD) {
      const auto& closed = *static_cast<const amqp_connection_close_t*>(reply.reply.decoded);
      return closed_by_broker(closed.reply_code, view(closed.reply_text), doing, address);
    }
    if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD) {
      const auto& closed = *static_cast<const amqp_channel_close_t*>(reply.reply.decoded);
      return closed_by_broker(closed.reply_code, view(closed.reply_text), doing, address);
    }
  }
  return library_error(AMQP_STATUS_UNEXPECTED_STATE, doing, address);
}

}  // namespace relay::rabbitmq
