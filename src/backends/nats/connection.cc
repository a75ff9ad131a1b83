#include "backends/nats/connection.h"

#include <fmt/core.h>
#include <nats/nats.h>
#include <netdb.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "backends/nats/call_limit.h"
#include "backends/nats/callbacks.h"
#include "backends/nats/errors.h"
#include "backends/nats/subject.h"
#include "core/text.h"
#include "core/uuid.h"

namespace relay::nats {

namespace {

std::string_view last_error() {
  const char* text = nats_GetLastError(nullptr);
  return text == nullptr ? std::string_view() : std::string_view(text);
}

std::string last_error_of(natsConnection* connection, natsStatus& status) {
  const char* text = nullptr;
  status = natsConnection_GetLastError(connection, &text);
  return text == nullptr ? std::string() : std::string(text);
}

/// Why the name of a host has no address; nullptr: it has.
const char* resolving_fails(const std::string& host) {
  addrinfo* found = nullptr;
  const int status = ::getaddrinfo(host.c_str(), nullptr, nullptr, &found);
  if (status == 0) ::freeaddrinfo(found);
  return status == 0 ? nullptr : ::gai_strerror(status);
}

std::uintptr_t id_of(void* closure) {
  return reinterpret_cast<std::uintptr_t>(closure);
}

// Called by the library's threads: they only record and signal. --------------------------------

void on_acknowledgement(jsCtx*, natsMsg* message, jsPubAck* ack, jsPubAckErr* refused,
                        void* closure) {
  const std::unique_ptr<natsMsg, decltype(&natsMsg_Destroy)> owned(message, &natsMsg_Destroy);
  const auto outcomes = find_outcomes(id_of(closure));
  if (!outcomes) return;
  if (refused == nullptr && ack != nullptr) {
    outcomes->told(message, ack->Duplicate ? Outcome::duplicate() : Outcome::delivered(),
                   ack->Stream == nullptr ? std::string_view() : std::string_view(ack->Stream));
    return;
  }
  const natsStatus status = refused == nullptr ? NATS_ERR : refused->Err;
  const char* text = refused == nullptr ? nullptr : refused->ErrText;
  const auto error = std::make_shared<const Error>(
      refusal(status, refused == nullptr ? 0 : static_cast<int>(refused->ErrCode),
              text == nullptr ? "" : text, natsMsg_GetSubject(message), outcomes->peer()));
  const bool poison = error->error_class == ErrorClass::rejected;
  outcomes->told(message, poison ? Outcome::rejected(error) : Outcome::unknown(error), {});
}

void on_closed(natsConnection* connection, void* closure) {
  const auto outcomes = find_outcomes(id_of(closure));
  if (!outcomes) return;
  natsStatus status = NATS_OK;
  const std::string detail = last_error_of(connection, status);
  if (status == NATS_OK) status = NATS_CONNECTION_CLOSED;
  outcomes->broke(std::make_shared<const Error>(connection_lost(status, detail, outcomes->peer())));
}

void on_error(natsConnection* connection, natsSubscription*, natsStatus status, void* closure) {
  if (status != NATS_NOT_PERMITTED) return;
  const auto outcomes = find_outcomes(id_of(closure));
  if (!outcomes) return;
  natsStatus ignored = NATS_OK;
  const std::string detail = last_error_of(connection, ignored);
  outcomes->refused(std::make_shared<const Error>(not_permitted(detail, outcomes->peer())));
}

/// The connect's own failures are returned; without this handler the library prints them.
Error option_error(std::string_view option, natsStatus status) {
  return {ErrorClass::misconfigured,
          "bad_option",
          fmt::format("{}: {}", option,
                      last_error().empty() ? natsStatus_GetText(status) : last_error().data()),
          fmt::format("correct {}", option),
          {}};
}

bool readable(const std::string& path) {
  return ::access(path.c_str(), R_OK) == 0;
}

Result<void> check_files(const Options& options) {
  const std::pair<std::string_view, const std::string*> files[] = {
      {"credentials_file", &options.credentials_file},
      {"tls_ca", &options.tls_ca},
      {"tls_cert", &options.tls_cert},
      {"tls_key", &options.tls_key}};
  for (const auto& [name, path] : files) {
    if (!path->empty() && !readable(*path)) {
      return fail(ErrorClass::misconfigured, "unreadable_file",
                  fmt::format("{}: the file {} cannot be read", name, *path),
                  "correct the path, or let the relay's user read it");
    }
  }
  return {};
}

}  // namespace

void Connection::Free::operator()(natsOptions* options) const {
  natsOptions_Destroy(options);
}
void Connection::Free::operator()(natsConnection* connection) const {
  natsConnection_Destroy(connection);
}
void Connection::Free::operator()(jsCtx* context) const {
  jsCtx_Destroy(context);
}
void Connection::Free::operator()(natsMsg* message) const {
  natsMsg_Destroy(message);
}

Connection::Connection(const Options& options, const Endpoint& endpoint, Lease& lease)
    : address_(endpoint.address),
      expected_stream_(options.stream),
      inbox_prefix_(options.inbox_prefix),
      operation_timeout_(options.operation_timeout),
      outcomes_(std::make_shared<Outcomes>(endpoint.address)),
      callback_id_(register_outcomes(outcomes_)),
      loop_(std::make_unique<EventLoop>(lease)) {}

Connection::~Connection() {
  withdraw_outcomes(callback_id_);
  if (connection_) natsConnection_Close(connection_.get());
  loop_.reset();
}

Result<std::unique_ptr<Connection>> Connection::open(const Options& options,
                                                     const Endpoint& endpoint, Lease& lease) {
  // The library's locks spin before they wait, which costs more than it saves: its threads and ours
  // are more than most machines have cores to spare.
  static const natsStatus opened = nats_Open(0);
  if (opened != NATS_OK) {
    return fail(ErrorClass::transient, "library",
                fmt::format("cannot start the NATS library: {}", natsStatus_GetText(opened)));
  }
  std::unique_ptr<Connection> connection(new Connection(options, endpoint, lease));
  if (auto connected = connection->connect(options, endpoint); !connected) {
    return fail(connected.error());
  }
  return connection;
}

Result<Connection::Owned<natsOptions>> Connection::library_options(const Options& options,
                                                                   const Endpoint& endpoint) {
  natsOptions* raw = nullptr;
  if (const natsStatus status = natsOptions_Create(&raw); status != NATS_OK) {
    return fail(option_error("the NATS library", status));
  }
  Owned<natsOptions> made(raw);
  natsStatus status = NATS_OK;
  std::string_view failed;
  const auto set = [&](std::string_view option, natsStatus result) {
    if (status == NATS_OK && result != NATS_OK) {
      status = result;
      failed = option;
    }
  };
  void* const closure = reinterpret_cast<void*>(callback_id_);
  const std::string name = fmt::format("pgtrickle-relay {}", options.pipeline);
  set("url", natsOptions_SetURL(raw, fmt::format("nats://{}", endpoint.address).c_str()));
  set("connect_timeout", natsOptions_SetTimeout(raw, options.connect_timeout.count()));
  set("pipeline", natsOptions_SetName(raw, name.c_str()));
  set("reconnect", natsOptions_SetAllowReconnect(raw, false));
  set("callbacks", natsOptions_SetClosedCB(raw, &on_closed, closure));
  set("callbacks", natsOptions_SetErrorHandler(raw, &on_error, closure));
  set("event loop", static_cast<natsStatus>(loop_->attach_to(raw)));
  if (!endpoint.user.empty()) {
    set("user", natsOptions_SetUserInfo(raw, endpoint.user.c_str(), endpoint.password.c_str()));
  }
  if (!endpoint.token.empty()) set("token", natsOptions_SetToken(raw, endpoint.token.c_str()));
  if (!options.credentials_file.empty()) {
    set("credentials_file",
        natsOptions_SetUserCredentialsFromFiles(raw, options.credentials_file.c_str(), nullptr));
  }
  set("inbox_prefix", natsOptions_SetCustomInboxPrefix(raw, options.inbox_prefix.c_str()));
  set("tls", natsOptions_SetSecure(raw, options.tls || endpoint.tls));
  // A server may ask for TLS by itself, so it is always said whom to trust. Without an expected
  // name the library would accept any name that a trusted authority signed.
  set("url", natsOptions_SetExpectedHostname(raw, endpoint.host.c_str()));
  set("tls_verify", natsOptions_SkipServerVerification(raw, !options.tls_verify));
  if (!options.tls_ca.empty()) {
    set("tls_ca", natsOptions_LoadCATrustedCertificates(raw, options.tls_ca.c_str()));
  }
  if (!options.tls_cert.empty()) {
    set("tls_cert, tls_key",
        natsOptions_LoadCertificatesChain(raw, options.tls_cert.c_str(), options.tls_key.c_str()));
  }
  if (status != NATS_OK) return fail(option_error(failed, status));
  return made;
}

Result<void> Connection::connect(const Options& options, const Endpoint& endpoint) {
  if (auto checked = check_files(options); !checked) return checked;
  auto library = library_options(options, endpoint);
  if (!library) return fail(library.error());
  natsConnection* raw = nullptr;
  natsStatus status = NATS_OK;
  {
    // The library's own limit leaves the TLS handshake out: it would wait for ever.
    const auto limit = CallLimit::make(options.connect_timeout);
    if (!limit) return fail(limit.error());
    status = natsConnection_Connect(&raw, library->get());
    if (status != NATS_OK && (*limit)->passed()) {
      return fail(connect_error(NATS_TIMEOUT, {}, address_));
    }
  }
  connection_.reset(raw);
  if (status == NATS_NO_SERVER) {  // for whatever reason
    if (const char* why = resolving_fails(endpoint.host)) return fail(unresolvable(why, address_));
  }
  if (status != NATS_OK) return fail(connect_error(status, last_error(), address_));
  max_payload_ = static_cast<std::size_t>(natsConnection_GetMaxPayload(raw));

  jsOptions js_options;
  jsOptions_Init(&js_options);
  js_options.Wait = operation_timeout_.count();
  js_options.Prefix = options.api_prefix.c_str();
  js_options.PublishAsync.AckHandler = &on_acknowledgement;
  js_options.PublishAsync.AckHandlerClosure = reinterpret_cast<void*>(callback_id_);
  jsCtx* context = nullptr;
  status = natsConnection_JetStream(&context, raw, &js_options);
  context_.reset(context);
  if (status != NATS_OK) return fail(connect_error(status, last_error(), address_));
  return {};
}

bool Connection::closed() const {
  return natsConnection_IsClosed(connection_.get());
}

namespace {

Error rejected(std::string code, std::string message, std::string remedy) {
  return {ErrorClass::rejected, std::move(code), std::move(message), std::move(remedy), {}};
}

/// A dead letter may have been written when headers of the protocol were kept.
bool is_sent(std::string_view header) {
  return !is_protocol_header(header) ||
         std::ranges::any_of(kSettableHeaders, [&](std::string_view settable) {
           return equal_ignoring_case(settable, header);
         });
}

/// Puts headers on a message, and keeps the first problem and the size of what is sent.
class HeaderWriter {
 public:
  HeaderWriter(natsMsg* message, std::string& scratch) : message_(message), scratch_(scratch) {}

  void add(const char* name, std::string_view value) {
    scratch_.assign(value);
    put(name, scratch_.c_str(), value.size());
  }
  void add_checked(std::string_view name, std::string_view value) {
    if (error_) return;
    if (const std::string_view problem = header_problem(name, value); !problem.empty()) {
      error_ = rejected("bad_header", fmt::format("header '{}': {}", name, problem),
                        "correct headers, or what the outbox row brings");
      return;
    }
    scratch_.assign(name).push_back('\0');
    scratch_.append(value);
    put(scratch_.c_str(), scratch_.c_str() + name.size() + 1, value.size());
  }

  const std::optional<Error>& error() const { return error_; }
  std::size_t bytes() const { return bytes_; }

 private:
  void put(const char* name, const char* value, std::size_t size) {
    if (natsMsgHeader_Add(message_, name, value) != NATS_OK) throw std::bad_alloc();
    bytes_ += std::char_traits<char>::length(name) + size + 4;
  }

  natsMsg* message_;
  std::string& scratch_;
  std::optional<Error> error_;
  std::size_t bytes_ = 14;  // "NATS/1.0", and the empty line behind the headers
};

}  // namespace

Result<void> Connection::add(const Message& message, std::size_t index) {
  if (const auto problem = subject_problem(message.subject); !problem.empty()) {
    return fail(rejected("illegal_subject",
                         fmt::format("subject '{}': {}", message.subject.substr(0, 200), problem),
                         "correct the subject template, or the values that it is made of"));
  }
  scratch_.assign(message.subject);
  natsMsg* raw = nullptr;
  if (natsMsg_Create(&raw, scratch_.c_str(), nullptr, message.body.data(),
                     static_cast<int>(message.body.size())) != NATS_OK) {
    throw std::bad_alloc();
  }
  Owned<natsMsg> owned(raw);
  HeaderWriter headers(raw, scratch_);
  headers.add_checked("Nats-Msg-Id", message.id);
  if (!expected_stream_.empty()) headers.add("Nats-Expected-Stream", expected_stream_);
  if (message.full_refresh) headers.add("Pgtrickle-Full-Refresh", "true");
  for_each_header(message, [&](std::string_view name, std::string_view value) {
    if (is_sent(name)) headers.add_checked(name, value);
  });
  if (headers.error()) return fail(*headers.error());
  const std::size_t bytes = headers.bytes() + message.body.size();
  if (bytes > max_payload_) {
    return fail(rejected("too_large",
                         fmt::format("{} bytes with headers, and {} takes at most {}", bytes,
                                     address_, max_payload_),
                         "raise the server's max_payload, or lower delta_max_rows"));
  }

  ready_.push_back({raw, index, bytes});
  ready_messages_.push_back(std::move(owned));
  return {};
}

Result<void> Connection::send() {
  outcomes_->sending(ready_);
  loop_->hold();
  Result<void> sent;
  std::size_t next = 0;
  for (; next < ready_.size(); ++next) {
    natsMsg* message = ready_messages_[next].release();
    const natsStatus status = js_PublishMsgAsync(context_.get(), &message, nullptr);
    if (status == NATS_OK) continue;
    ready_messages_[next].reset(message);  // the library did not take it
    sent = fail(publish_error(status, last_error(), address_));
    break;
  }
  loop_->release();
  if (!sent) outcomes_->not_sent(std::span(ready_).subspan(next));
  ready_.clear();
  ready_messages_.clear();
  return sent;
}

Result<StreamFacts> Connection::stream_facts(const std::string& stream) {
  jsStreamInfo* info = nullptr;
  jsErrCode code{};
  const natsStatus status = js_GetStreamInfo(&info, context_.get(), stream.c_str(), nullptr, &code);
  if (status != NATS_OK) {
    return fail(stream_error(status, static_cast<int>(code), last_error(), stream, address_));
  }
  StreamFacts facts;
  facts.replicas = static_cast<int>(info->Config->Replicas);
  const bool limited = info->Config->MaxMsgs > 0 || info->Config->MaxBytes > 0 ||
                       info->Config->MaxMsgsPerSubject > 0;
  facts.refuses_when_full = info->Config->Discard == js_DiscardNew && limited;
  jsStreamInfo_Destroy(info);
  return facts;
}

Result<bool> Connection::has_stream_over(const std::string& subject) {
  jsOptions options;
  jsOptions_Init(&options);
  options.Stream.Info.SubjectsFilter = subject.c_str();
  jsStreamNamesList* names = nullptr;
  jsErrCode code{};
  const natsStatus status = js_StreamNames(&names, context_.get(), &options, &code);
  if (status == NATS_NOT_FOUND) return false;
  if (status != NATS_OK) {
    return fail(stream_error(status, static_cast<int>(code), last_error(), subject, address_));
  }
  const bool found = names->Count > 0;
  jsStreamNamesList_Destroy(names);
  return found;
}

std::string Connection::new_inbox() const {
  return fmt::format("{}.{}", inbox_prefix_, new_uuid());
}

Result<void> Connection::create_stream(const std::string& stream, const Options& options) {
  std::vector<const char*> names;
  for (const std::string& subject : options.stream_subjects) names.push_back(subject.c_str());
  const StreamLimits& limits = options.limits;
  const auto nanoseconds = [](std::chrono::milliseconds time) {
    return std::chrono::nanoseconds(time).count();
  };
  jsStreamConfig config;
  jsStreamConfig_Init(&config);
  config.Name = stream.c_str();
  config.Subjects = names.data();
  config.SubjectsLen = static_cast<int>(names.size());
  config.Storage = js_FileStorage;
  config.Replicas = limits.replicas;
  config.AllowRollup = limits.allows_rollup;
  if (limits.max_age) config.MaxAge = nanoseconds(*limits.max_age);
  if (limits.max_bytes) config.MaxBytes = *limits.max_bytes;
  if (limits.max_messages) config.MaxMsgs = *limits.max_messages;
  if (limits.duplicate_window) config.Duplicates = nanoseconds(*limits.duplicate_window);
  jsErrCode code{};
  const natsStatus status = js_AddStream(nullptr, context_.get(), &config, nullptr, &code);
  // Another instance made it in the meantime: what it made is looked at next.
  if (status == NATS_OK || code == JSStreamNameExistErr) return {};
  return fail(stream_error(status, static_cast<int>(code), last_error(), stream, address_));
}

}  // namespace relay::nats
