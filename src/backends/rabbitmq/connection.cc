#include "backends/rabbitmq/connection.h"

#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "backends/rabbitmq/client_library.h"
#include "backends/rabbitmq/errors.h"
#include "backends/rabbitmq/frames.h"
#include "backends/rabbitmq/tls.h"
#include "config/tls.h"

namespace relay::rabbitmq {

namespace {

using std::chrono::milliseconds;

constexpr amqp_channel_t kChannel = 1;
constexpr int kFrameMax = 131072;
/// Of a frame of headers: what is beside the table.
constexpr std::size_t kFrameOverhead = 2048;
constexpr std::size_t kLongestShortString = 255;
constexpr milliseconds kFarewell{1000};

timeval to_timeval(milliseconds time) {
  return {time.count() / 1000, (time.count() % 1000) * 1000};
}

amqp_bytes_t bytes(std::string_view text) {
  // The library does not write to what it sends.
  return {text.size(), const_cast<char*>(text.data())};
}

amqp_table_entry_t text_entry(std::string_view name, std::string_view value) {
  amqp_table_entry_t entry{};
  entry.key = bytes(name);
  entry.value.kind = AMQP_FIELD_KIND_UTF8;
  entry.value.value.bytes = bytes(value);
  return entry;
}

amqp_table_entry_t offset_entry(const StreamOffset& from) {
  if (from.kind == StreamOffset::Kind::first) return text_entry("x-stream-offset", "first");
  amqp_table_entry_t entry{};
  entry.key = bytes("x-stream-offset");
  if (from.kind == StreamOffset::Kind::time) {
    entry.value.kind = AMQP_FIELD_KIND_TIMESTAMP;
    entry.value.value.u64 = static_cast<std::uint64_t>(from.value);
  } else {
    entry.value.kind = AMQP_FIELD_KIND_I64;
    entry.value.value.i64 = from.value;
  }
  return entry;
}

/// A text among the properties by which a broker introduces itself.
std::string_view text_of(const amqp_table_t& table, std::string_view name) {
  for (int i = 0; i < table.num_entries; ++i) {
    const amqp_table_entry_t& entry = table.entries[i];
    const bool found =
        std::string_view(static_cast<const char*>(entry.key.bytes), entry.key.len) == name;
    if (!found || entry.value.kind != AMQP_FIELD_KIND_UTF8) continue;
    const amqp_bytes_t& value = entry.value.value.bytes;
    return {static_cast<const char*>(value.bytes), value.len};
  }
  return {};
}

amqp_table_entry_t yes_entry(std::string_view name) {
  amqp_table_entry_t entry{};
  entry.key = bytes(name);
  entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
  entry.value.value.boolean = 1;
  return entry;
}

amqp_table_entry_t entry_of(const std::string& name, const Argument& argument) {
  if (const auto* text = std::get_if<std::string>(&argument)) return text_entry(name, *text);
  amqp_table_entry_t entry{};
  entry.key = bytes(name);
  if (const auto* boolean = std::get_if<bool>(&argument)) {
    entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
    entry.value.value.boolean = *boolean ? 1 : 0;
  } else if (const auto* number = std::get_if<double>(&argument)) {
    entry.value.kind = AMQP_FIELD_KIND_F64;
    entry.value.value.f64 = *number;
  } else {
    entry.value.kind = AMQP_FIELD_KIND_I64;
    entry.value.value.i64 = std::get<std::int64_t>(argument);
  }
  return entry;
}

/// They point into the arguments.
std::vector<amqp_table_entry_t> entries_of(const Arguments& arguments) {
  std::vector<amqp_table_entry_t> entries;
  for (const auto& [name, argument] : arguments) entries.push_back(entry_of(name, argument));
  return entries;
}

amqp_table_t table_of(std::vector<amqp_table_entry_t>& entries) {
  return {static_cast<int>(entries.size()), entries.data()};
}

void set_up_socket(int socket, milliseconds patience) {
  const auto set = [&](int level, int option, unsigned value) {
    ::setsockopt(socket, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set(IPPROTO_TCP, TCP_KEEPCNT, 4);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<unsigned>(patience.count()));
}

tl::unexpected<Error> rejected(std::string code, std::string message, std::string remedy) {
  return fail(ErrorClass::rejected, std::move(code), std::move(message), std::move(remedy));
}

}  // namespace

struct Connection::State {
  amqp_connection_state_t library = nullptr;
  FrameReader frames;
  std::vector<amqp_table_entry_t> headers;
  std::string outbox_id;
};

Connection::Connection(const ConnectionOptions&, const Endpoint& endpoint)
    : address_(endpoint.address), state_(std::make_unique<State>()) {
  state_->library = amqp_new_connection();
  if (state_->library == nullptr) throw std::bad_alloc();
}

Connection::~Connection() {
  heartbeat_.reset();
  if (!broken_ && socket() >= 0) {
    const timeval patience = to_timeval(kFarewell);
    amqp_set_rpc_timeout(state_->library, &patience);
    amqp_connection_close(state_->library, AMQP_REPLY_SUCCESS);
  }
  cutter_.reset();  // before the socket is closed
  amqp_destroy_connection(state_->library);
}

int Connection::socket() const {
  return amqp_get_sockfd(state_->library);
}

tl::unexpected<Error> Connection::broke(Error error) {
  broken_ = true;
  return fail(std::move(error));
}

/// An operation of the library failed, perhaps because the heartbeat ended the connection.
tl::unexpected<Error> Connection::broke(int status, std::string_view doing) {
  if (heartbeat_ && heartbeat_->met_silence()) {
    return broke(Error{ErrorClass::transient,
                       "heartbeat_timeout",
                       fmt::format("RabbitMQ at {} sent nothing for {} s, no heartbeat either",
                                   address_, 2 * heartbeat_->interval().count()),
                       "see whether the broker hangs, and the network between",
                       {}});
  }
  return broke(library_error(status, doing, address_));
}

/// What the library itself does about heartbeats is switched off: it would take a broker for silent
/// whose bytes it did not read.
void Connection::start_heartbeat() {
  const auto interval = std::chrono::seconds(amqp_get_heartbeat(state_->library));
  if (interval.count() <= 0) return;
  amqp_tune_connection(state_->library, amqp_get_channel_max(state_->library),
                       amqp_get_frame_max(state_->library), 0);
  heartbeat_ = std::make_unique<Heartbeat>(socket(), interval, [this] { send_heartbeat(); });
}

void Connection::send_heartbeat() {
  if (!library_.try_lock()) return;
  const MutexLock lock(library_, std::adopt_lock);
  pollfd waits{socket(), POLLOUT, 0};
  if (::poll(&waits, 1, 0) <= 0) return;
  amqp_frame_t frame{};
  frame.frame_type = AMQP_FRAME_HEARTBEAT;
  // Where this fails, the next use of the connection fails as well, and says why.
  amqp_send_frame(state_->library, &frame);
}

Result<std::unique_ptr<Connection>> Connection::open(const ConnectionOptions& options,
                                                     const Endpoint& endpoint) {
  std::unique_ptr<Connection> connection(new Connection(options, endpoint));
  if (auto connected = connection->connect(options, endpoint); !connected) {
    return fail(connected.error());
  }
  return connection;
}

Result<void> Connection::connect(const ConnectionOptions& options, const Endpoint& endpoint) {
  if (auto opened = open_socket(options, endpoint); !opened) return opened;
  const timeval patience = to_timeval(options.operation_timeout);
  amqp_set_handshake_timeout(state_->library, &patience);
  amqp_set_rpc_timeout(state_->library, &patience);
  set_up_socket(socket(), options.operation_timeout);
  if (auto in = log_in(options, endpoint); !in) return in;
  if (const amqp_table_t* const said = amqp_get_server_properties(state_->library)) {
    version_ = parse_version(text_of(*said, "product"), text_of(*said, "version"));
  }
  amqp_channel_open(state_->library, kChannel);
  set_up_socket(socket(), options.ack_timeout);
  if (auto opened = answer_of_last_call("opening a channel"); !opened) return opened;
  start_heartbeat();
  return {};
}

Result<void> Connection::open_socket(const ConnectionOptions& options, const Endpoint& endpoint) {
  amqp_socket_t* const socket =
      endpoint.tls ? amqp_ssl_socket_new(state_->library) : amqp_tcp_socket_new(state_->library);
  if (socket == nullptr) throw std::bad_alloc();
  if (endpoint.tls) {
    if (auto set = set_up_tls(socket, options, endpoint); !set) return broke(set.error());
  }
  const timeval patience = to_timeval(options.connect_timeout);
  const int status =
      amqp_socket_open_noblock(socket, endpoint.host.c_str(), endpoint.port, &patience);
  if (status == AMQP_STATUS_OK) return {};
  if (endpoint.tls && distrust() != nullptr) return broke(not_trusted(distrust(), address_));
  return broke(library_error(status, "connecting", address_));
}

Result<void> Connection::log_in(const ConnectionOptions& options, const Endpoint& endpoint) {
  const std::string name = "pgtrickle-relay " + options.pipeline;
  amqp_table_entry_t wanted[] = {yes_entry("connection.blocked"),
                                 yes_entry("consumer_cancel_notify"), yes_entry("basic.nack"),
                                 yes_entry("publisher_confirms")};
  amqp_table_entry_t capabilities{};
  capabilities.key = bytes("capabilities");
  capabilities.value.kind = AMQP_FIELD_KIND_TABLE;
  capabilities.value.value.table = {static_cast<int>(std::size(wanted)), wanted};
  amqp_table_entry_t entries[] = {text_entry("connection_name", name), capabilities};
  const amqp_table_t properties = {static_cast<int>(std::size(entries)), entries};
  const amqp_rpc_reply_t reply = amqp_login_with_properties(
      state_->library, endpoint.vhost.c_str(), AMQP_DEFAULT_MAX_CHANNELS, kFrameMax,
      static_cast<int>(options.heartbeat.count()), &properties, AMQP_SASL_METHOD_PLAIN,
      endpoint.user.c_str(), endpoint.password.c_str());
  if (reply.reply_type == AMQP_RESPONSE_NORMAL) return {};
  return broke(call_error(reply, "logging in", address_));
}

Result<void> Connection::answer_of_last_call(std::string_view doing) {
  const amqp_rpc_reply_t reply = amqp_get_rpc_reply(state_->library);
  if (reply.reply_type == AMQP_RESPONSE_NORMAL) return {};
  return broke(call_error(reply, doing, address_));
}

Result<void> Connection::declare_exchange(const std::string& name, const std::string& type,
                                          bool passive, const Arguments& arguments) {
  const MutexLock lock(library_);
  auto entries = entries_of(arguments);
  amqp_exchange_declare(state_->library, kChannel, bytes(name), bytes(type), passive ? 1 : 0, 1, 0,
                        0, table_of(entries));
  return answer_of_last_call(passive ? fmt::format("looking for the exchange '{}'", name)
                                     : fmt::format("declaring the exchange '{}'", name));
}

Result<void> Connection::want_confirms() {
  const MutexLock lock(library_);
  amqp_confirm_select(state_->library, kChannel);
  return answer_of_last_call("asking for confirms");
}

Result<void> Connection::end_with(Lease& lease) {
  auto cutter = SocketCutter::make(lease, socket());
  if (!cutter) return broke(cutter.error());
  cutter_ = std::move(*cutter);
  return {};
}

Result<std::optional<std::uint32_t>> Connection::count_ready(const std::string& name) {
  const MutexLock lock(library_);
  const amqp_queue_declare_ok_t* const found =
      amqp_queue_declare(state_->library, kChannel, bytes(name), 1, 1, 0, 0, amqp_empty_table);
  auto answer = answer_of_last_call(fmt::format("looking for the queue '{}'", name));
  if (answer) return std::optional(found->message_count);
  if (answer.error().code == "not_found") return std::optional<std::uint32_t>();
  return fail(answer.error());
}

Result<void> Connection::declare_queue(const std::string& name, const Arguments& arguments) {
  const MutexLock lock(library_);
  auto entries = entries_of(arguments);
  amqp_queue_declare(state_->library, kChannel, bytes(name), 0, 1, 0, 0, table_of(entries));
  return answer_of_last_call(fmt::format("declaring the queue '{}'", name));
}

Result<void> Connection::bind_queue(const std::string& name, const std::string& exchange,
                                    const std::string& key) {
  const MutexLock lock(library_);
  amqp_queue_bind(state_->library, kChannel, bytes(name), bytes(exchange), bytes(key),
                  amqp_empty_table);
  return answer_of_last_call(
      fmt::format("binding the queue '{}' to the exchange '{}'", name, exchange));
}

Result<void> Connection::consume(const std::string& queue, std::uint16_t prefetch,
                                 const std::optional<StreamOffset>& from) {
  const MutexLock lock(library_);
  if (!consumer_.empty()) {
    amqp_basic_cancel(state_->library, kChannel, bytes(consumer_));
    if (auto ended = answer_of_last_call("ending a consumer"); !ended) return ended;
    consumer_.clear();
  }
  amqp_basic_qos(state_->library, kChannel, 0, prefetch, 0);
  if (auto set = answer_of_last_call("setting the prefetch count"); !set) return set;
  amqp_table_entry_t offset = from ? offset_entry(*from) : amqp_table_entry_t{};
  const amqp_table_t arguments = {from ? 1 : 0, &offset};
  const amqp_basic_consume_ok_t* const begun = amqp_basic_consume(
      state_->library, kChannel, bytes(queue), amqp_empty_bytes, 0, 0, 0, arguments);
  auto answer = answer_of_last_call(fmt::format("consuming the queue '{}'", queue));
  if (!answer) return answer;
  consumer_.assign(static_cast<const char*>(begun->consumer_tag.bytes), begun->consumer_tag.len);
  return {};
}

Result<void> Connection::acknowledge_up_to(std::uint64_t tag) {
  const MutexLock lock(library_);
  const int status = amqp_basic_ack(state_->library, kChannel, tag, 1);
  if (status != AMQP_STATUS_OK) return broke(status, "acknowledging");
  return {};
}

Result<void> Connection::publish(const Message& message, const Publish& how) {
  if (message.subject.size() > kLongestShortString) {
    return rejected(
        "routing_key_too_long",
        fmt::format("a routing key has at most 255 bytes, not {}", message.subject.size()),
        "correct routing_key, or the values that it is made of");
  }
  if (message.id.size() > kLongestShortString) {
    return rejected("id_too_long",
                    fmt::format("a message-id has at most 255 bytes, not {}", message.id.size()),
                    "shorten id_prefix, or the event's id");
  }
  auto& headers = state_->headers;
  headers.clear();
  std::size_t size = message.subject.size() + message.content_type.size() + message.op.size();
  bool name_too_long = false;
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    if (name == "pgtrickle-outbox-id")
      value = state_->outbox_id.assign(value);  // made for the call
    headers.push_back(text_entry(name, value));
    size += name.size() + value.size() + 6;
    name_too_long = name_too_long || name.size() > kLongestShortString;
  });
  const auto room = static_cast<std::size_t>(amqp_get_frame_max(state_->library)) - kFrameOverhead;
  if (size > room || name_too_long) {
    return rejected("headers_too_large",
                    fmt::format("headers of {} bytes, and a frame has room for {}", size, room),
                    "send fewer or shorter headers");
  }
  amqp_basic_properties_t properties{};
  properties._flags = AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_HEADERS_FLAG |
                      AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG;
  properties.message_id = bytes(message.id);
  properties.headers = {static_cast<int>(headers.size()), headers.data()};
  properties.delivery_mode =
      how.persistent ? AMQP_DELIVERY_PERSISTENT : AMQP_DELIVERY_NONPERSISTENT;
  const auto since_1970 = message.created_at.time_since_epoch();
  properties.timestamp = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(since_1970).count());
  if (!message.content_type.empty() && message.content_type.size() <= kLongestShortString) {
    properties._flags |= AMQP_BASIC_CONTENT_TYPE_FLAG;
    properties.content_type = bytes(message.content_type);
  }
  if (!message.op.empty() && message.op.size() <= kLongestShortString) {
    properties._flags |= AMQP_BASIC_TYPE_FLAG;
    properties.type = bytes(message.op);
  }
  const MutexLock lock(library_);
  const int status =
      amqp_basic_publish(state_->library, kChannel, bytes(how.exchange), bytes(message.subject),
                         how.mandatory ? 1 : 0, 0, &properties, bytes(message.body));
  if (status != AMQP_STATUS_OK) return broke(status, "publishing");
  return {};
}

Result<std::optional<Notice>> Connection::next_notice() {
  const MutexLock lock(library_);
  while (true) {
    amqp_frame_t frame;
    const timeval now{0, 0};
    const int status = amqp_simple_wait_frame_noblock(state_->library, &frame, &now);
    if (status == AMQP_STATUS_TIMEOUT) return std::optional<Notice>();
    if (status != AMQP_STATUS_OK) return broke(status, "waiting");
    auto read = state_->frames.add(frame, address_, blocked_);
    if (!read) return broke(read.error());
    if (state_->frames.between_notices()) amqp_maybe_release_buffers(state_->library);
    if (!*read) continue;
    if (std::holds_alternative<ChannelClosed>(**read)) broken_ = true;
    return read;
  }
}

Connection::Wait Connection::wait(bool to_write, Deadline deadline, int stop_fd) {
  pollfd waits[2] = {{socket(), static_cast<short>(POLLIN | (to_write ? POLLOUT : 0)), 0},
                     {stop_fd, POLLIN, 0}};
  while (true) {
    const int found = ::poll(waits, 2, static_cast<int>(deadline.left().count()));
    if (found < 0 && errno == EINTR) continue;
    if (found <= 0) return {};
    return {.readable = (waits[0].revents & ~POLLOUT) != 0,
            .writable = (waits[0].revents & POLLOUT) != 0,
            .stopped = waits[1].revents != 0};
  }
}

Result<std::unique_ptr<Connection>> open_any(const ConnectionOptions& options, EndpointWalk& walk,
                                             std::stop_token stop) {
  const auto open = [&](const Endpoint& endpoint) -> Result<std::unique_ptr<Connection>> {
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", "stopped while connecting to RabbitMQ");
    }
    auto connection = Connection::open(options, endpoint);
    if (connection && endpoint.tls && !options.tls_verify) {
      config::warn_of_no_verification(options.pipeline, endpoint.address);
    }
    return connection;
  };
  return walk.open_first(options.endpoints, open);
}

}  // namespace relay::rabbitmq
