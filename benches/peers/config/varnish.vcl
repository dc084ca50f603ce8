vcl 4.1;

backend default {
  .host = "{HOST}";
  .port = "{PORT}";
}

sub vcl_recv {
  if (req.method == "PURGE") {
    return (purge);
  }
}

sub vcl_backend_response {
  {COMPRESSION}
}

sub vcl_deliver {
  if (obj.hits > 0) {
    set resp.http.X-Cache = "HIT";
  } else {
    set resp.http.X-Cache = "MISS";
  }
}
