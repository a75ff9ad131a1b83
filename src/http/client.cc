#include "http/client.h"

#include <curl/curl.h>
#include <fmt/core.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <memory>
#include <mutex>
#include <utility>

#include "core/text.h"
#include "core/tls_remedy.h"
#include "http/address_guard.h"
#include "http/url.h"

namespace relay::http {

namespace {

using std::chrono::milliseconds;

constexpr std::size_t kMaxHeaderBytes = 256 * 1024;
constexpr milliseconds kLongestRetryAfter = std::chrono::hours(1);

struct FreeEasy {
  void operator()(CURL* easy) const { curl_easy_cleanup(easy); }
};
struct FreeMulti {
  void operator()(CURLM* multi) const { curl_multi_cleanup(multi); }
};
using Easy = std::unique_ptr<CURL, FreeEasy>;
using Multi = std::unique_ptr<CURLM, FreeMulti>;

void initialise_once() {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
}

bool starts_with_name(std::string_view line, std::string_view name) {
  return line.size() > name.size() && line[name.size()] == ':' &&
         equal_ignoring_case(line.substr(0, name.size()), name);
}

/// One request under way, and the handle that carries one after the other.
struct Transfer {
  Easy easy{curl_easy_init()};
  Request request;
  Response response;
  std::size_t max_bytes = 0;
  std::size_t header_bytes = 0;
  bool allow_private = true;
  LeasedSockets* sockets = nullptr;
  std::string refused_address;
  char why[CURL_ERROR_SIZE] = "";
};

std::size_t take_body(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  std::string& body = transfer.response.body;
  const std::size_t room = transfer.max_bytes - std::min(transfer.max_bytes, body.size());
  body.append(data, std::min(room, size));
  if (size <= room) return size;
  transfer.response.truncated = true;
  return 0;  // ends the transfer
}

std::size_t take_header(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) return 0;
  const std::string_view line(data, size);
  const std::string& wanted = transfer.request.error_header;
  if (!wanted.empty() && starts_with_name(line, wanted)) {
    transfer.response.error_header = trimmed(line.substr(wanted.size() + 1));
  }
  return size;
}

// The address here is the one that is connected to, whatever a name server said before or says
// next: https://curl.se/libcurl/c/CURLOPT_OPENSOCKETFUNCTION.html
curl_socket_t open_socket(void* user, curlsocktype, curl_sockaddr* to) {
  auto& transfer = *static_cast<Transfer*>(user);
  if (!transfer.allow_private && !is_public_address(to->addr)) {
    transfer.refused_address = address_text(to->addr);
    return CURL_SOCKET_BAD;
  }
  return transfer.sockets->open(to->family, to->socktype, to->protocol);
}

int close_socket(void* user, curl_socket_t socket) {
  return static_cast<LeasedSockets*>(user)->close(socket);
}

Error no_response(const Transfer& transfer, CURLcode code) {
  const std::string origin = origin_of(transfer.request.url);
  const std::string detail = transfer.why[0] ? transfer.why : curl_easy_strerror(code);
  const auto error = [&](ErrorClass error_class, std::string name, std::string what,
                         std::string remedy) {
    return Error{error_class, std::move(name), origin + " " + what, std::move(remedy), {}};
  };
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return error(ErrorClass::misconfigured, "certificate",
                   fmt::format("shows a certificate that is not trusted: {}", detail),
                   tls_remedy(detail, "set tls_ca to the file with the authority that signed it"));
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CERTPROBLEM:
      return error(ErrorClass::misconfigured, "certificate_file",
                   fmt::format("cannot be reached with these certificate files: {}", detail),
                   "look at tls_ca, tls_cert and tls_key");
    case CURLE_COULDNT_RESOLVE_HOST:
      return error(ErrorClass::transient, "unresolvable", "cannot be reached: no such name",
                   "check the host in the url, and this machine's name resolution");
    case CURLE_OPERATION_TIMEDOUT:
      return error(ErrorClass::transient, "timeout",
                   fmt::format("did not answer within {} ms", transfer.request.timeout.count()),
                   "if this stays, look at the server, or raise timeout");
    case CURLE_WRITE_ERROR:
      return error(ErrorClass::transient, "response_too_large",
                   "answered with more headers than are taken", "look at the server");
    case CURLE_COULDNT_CONNECT:
      if (!transfer.refused_address.empty()) {
        return error(
            ErrorClass::misconfigured, "private_address",
            fmt::format("is at {}, which is not a public address", transfer.refused_address),
            "set allow_private = true where requests into the own network are meant");
      }
      return error(ErrorClass::transient, std::string(kUnreachable),
                   fmt::format("cannot be reached: {}", detail),
                   "check host and port in the url, that the server runs, and that this machine "
                   "reaches it");
    default:
      return error(ErrorClass::transient, "connection", fmt::format("gave no answer: {}", detail),
                   "it is tried again");
  }
}

}  // namespace

Headers::~Headers() {
  curl_slist_free_all(list_);
}

void Headers::add(std::string_view name, std::string_view value) {
  assert(is_header_name(name) && is_header_value(value));
  std::string line(name);
  // "Name:" would take a header away: https://curl.se/libcurl/c/CURLOPT_HTTPHEADER.html
  if (value.empty()) {
    line += ';';
  } else {
    line += ": ";
    line += value;
  }
  if (curl_slist* longer = curl_slist_append(list_, line.c_str())) list_ = longer;
}

bool is_header_name(std::string_view name) {
  static constexpr std::string_view kOthers = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           kOthers.find(c) != std::string_view::npos;
  });
}

bool is_header_value(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
  });
}

struct Client::Impl {
  Impl(ClientOptions given, Lease& lease)
      : options(std::move(given)), sockets(lease), multi(curl_multi_init()) {
    const auto most = static_cast<long>(options.max_connections);
    curl_multi_setopt(multi.get(), CURLMOPT_MAXCONNECTS, most);
    curl_multi_setopt(multi.get(), CURLMOPT_MAX_TOTAL_CONNECTIONS, most);
  }

  ~Impl() {
    for (const auto& transfer : busy) curl_multi_remove_handle(multi.get(), transfer->easy.get());
  }

  /// A handle with everything set that no request changes.
  std::unique_ptr<Transfer> make_transfer() {
    auto transfer = std::make_unique<Transfer>();
    transfer->max_bytes = options.max_response_bytes;
    transfer->allow_private = options.allow_private;
    transfer->sockets = &sockets;
    CURL* easy = transfer->easy.get();
    curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer.get());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    // A name server that does not answer must not hold up the end of a request.
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    // A header of that name among the request's own takes its place.
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "pgtrickle-relay/" RELAY_VERSION);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(options.connect_timeout.count()));
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->why);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &take_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, &open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer.get());
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, &close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, &sockets);
    set_security(easy);
    return transfer;
  }

  void set_security(CURL* easy) {
    if (!options.tls_ca.empty()) curl_easy_setopt(easy, CURLOPT_CAINFO, options.tls_ca.c_str());
    if (!options.tls_cert.empty()) {
      curl_easy_setopt(easy, CURLOPT_SSLCERT, options.tls_cert.c_str());
      curl_easy_setopt(easy, CURLOPT_SSLKEY, options.tls_key.c_str());
    }
    if (!options.tls_verify) {
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
      curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (!options.user.empty()) {
      curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
      curl_easy_setopt(easy, CURLOPT_USERNAME, options.user.c_str());
      curl_easy_setopt(easy, CURLOPT_PASSWORD, options.password.c_str());
    }
  }

  void start(std::size_t token, Request request) {
    std::unique_ptr<Transfer> transfer;
    if (idle.empty()) {
      transfer = make_transfer();
    } else {
      transfer = std::move(idle.back());
      idle.pop_back();
    }
    transfer->response = {};
    transfer->response.token = token;
    transfer->refused_address.clear();
    transfer->header_bytes = 0;
    transfer->why[0] = 0;
    transfer->request = std::move(request);
    set_request(*transfer);
    curl_multi_add_handle(multi.get(), transfer->easy.get());
    busy.push_back(std::move(transfer));
  }

  static void set_request(Transfer& transfer) {
    CURL* easy = transfer.easy.get();
    Request& request = transfer.request;
    curl_easy_setopt(easy, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     std::max(1L, static_cast<long>(request.timeout.count())));
    if (request.method == "HEAD") {
      curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, nullptr);
    } else if (request.method == "OPTIONS") {
      curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "OPTIONS");
    } else if (request.method == "GET") {
      curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, nullptr);
    } else {
      const std::string_view body =
          request.owned_body.empty() ? request.body : std::string_view(request.owned_body);
      curl_easy_setopt(easy, CURLOPT_POST, 1L);
      curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
                       request.method == "POST" ? nullptr : request.method.c_str());
      curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body.size()));
      curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body.empty() ? "" : body.data());
      // Waiting for "100 Continue" would cost a second with servers that do not know it.
      if (curl_slist* longer = curl_slist_append(request.headers.list_, "Expect:")) {
        request.headers.list_ = longer;
      }
    }
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, request.headers.list_);
  }

  std::unique_ptr<Transfer> take_out(CURL* easy) {
    void* of = nullptr;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &of);
    const auto found = std::find_if(busy.begin(), busy.end(),
                                    [&](const auto& transfer) { return transfer.get() == of; });
    assert(found != busy.end());
    auto transfer = std::move(*found);
    *found = std::move(busy.back());
    busy.pop_back();
    curl_multi_remove_handle(multi.get(), easy);
    return transfer;
  }

  void finish(CURL* easy, CURLcode code, std::vector<Response>& responses) {
    auto transfer = take_out(easy);
    Response& response = transfer->response;
    if (code == CURLE_OK || response.truncated) {
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      response.status = static_cast<int>(status);
      curl_off_t seconds = 0;
      curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
      response.retry_after = std::min<milliseconds>(
          std::chrono::seconds(std::min<curl_off_t>(seconds, 86400)), kLongestRetryAfter);
    } else {
      response.error = share(no_response(*transfer, code));
    }
    responses.push_back(std::move(response));
    idle.push_back(std::move(transfer));
  }

  bool collect(std::vector<Response>& responses) {
    int running = 0;
    curl_multi_perform(multi.get(), &running);
    int left = 0;
    bool any = false;
    while (const CURLMsg* message = curl_multi_info_read(multi.get(), &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      finish(message->easy_handle, message->data.result, responses);
      any = true;
    }
    return any;
  }

  const ClientOptions options;
  LeasedSockets sockets;  // before the handles: they close what they still have open
  Multi multi;
  std::vector<std::unique_ptr<Transfer>> busy;
  std::vector<std::unique_ptr<Transfer>> idle;
};

Client::Client(ClientOptions options, Lease& lease) {
  initialise_once();
  impl_ = std::make_unique<Impl>(std::move(options), lease);
}

Client::~Client() = default;

void Client::start(std::size_t token, Request request) {
  impl_->start(token, std::move(request));
}

std::size_t Client::in_flight() const {
  return impl_->busy.size();
}

void Client::wait(std::vector<Response>& responses, Deadline deadline, std::stop_token stop) {
  CURLM* multi = impl_->multi.get();
  const std::stop_callback wake(stop, [multi] { curl_multi_wakeup(multi); });
  while (!impl_->busy.empty() && !impl_->collect(responses)) {
    if (stop.stop_requested() || deadline.passed()) return;
    const auto longest = static_cast<int>(std::min(deadline.left(), milliseconds(1000)).count());
    curl_multi_poll(multi, nullptr, 0, longest, nullptr);
  }
}

void Client::cancel_all() {
  while (!impl_->busy.empty())
    impl_->idle.push_back(impl_->take_out(impl_->busy.back()->easy.get()));
}

Result<Response> Client::fetch(Request request, Deadline deadline, std::stop_token stop) {
  const std::string origin = origin_of(request.url);
  request.timeout = std::min(request.timeout, deadline.left());
  start(0, std::move(request));
  std::vector<Response> responses;
  wait(responses, deadline, stop);
  if (responses.empty()) {
    cancel_all();
    if (stop.stop_requested()) {
      return fail(ErrorClass::cancelled, "stopped", fmt::format("stopped while asking {}", origin));
    }
    return fail(ErrorClass::transient, "timeout", fmt::format("{} did not answer in time", origin),
                "it is tried again");
  }
  if (responses[0].error) return fail(*responses[0].error);
  return std::move(responses[0]);
}

}  // namespace relay::http
