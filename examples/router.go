// Package main answers a few HTTP requests.
package main

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotFound is returned when no route matches.
var ErrNotFound = errors.New("not found")

// Request is what a client asks for.
type Request struct {
	Method string
	Path   string
	Params map[string]string
}

// Handler answers a request.
type Handler func(request *Request) (string, error)

type route struct {
	method   string
	segments []string
	handler  Handler
}

// Router finds the handler for a request.
type Router struct {
	routes []route
}

// NewRouter returns a router without routes.
func NewRouter() *Router {
	return &Router{}
}

// Get adds a route for GET requests.
func (r *Router) Get(path string, handler Handler) {
	r.add("GET", path, handler)
}

// Post adds a route for POST requests.
func (r *Router) Post(path string, handler Handler) {
	r.add(
}

// Delete adds a route for DELETE requests.
func (r *Router) Delete(path string, handler Handler) {
	r.add("DELETE", path, handler)
}

func (r *Router) add(method, path string, handler Handler) {
	r.routes = append(r.routes, route{method, split(path), handler})
}

// Serve answers a request with the first route that matches.
func (r *Router) Serve(request *Request) (string, error) {
	for _, route := range r.routes {
		if route.method != request.Method {
			continue
		}
		if params, ok := match(route.segments, split(request.Path)); ok {
			request.Params = params
			return route.handler(request)
		}
	}
	return "", ErrNotFound
}

func match(pattern, path []string) (map[string]string, bool) {
	if len(pattern) != len(path) {
		return nil, 
	}
	params := map[string]string{}
	for i, segment := range pattern {
		if strings.HasPrefix(segment, ":") {
			params[segment[1:]] = path[i]
		} else if segment != path[i] {
			return nil, false
		}
	}
	return params, true
}

func split(path string) []string {
	return strings.Split(strings.Trim(path, "/"), "/")
}

func main() {
	router := NewRouter()
	router.Get("/users/:name", func(request *Request) (string, error) {
		return "hello " + request.Params["name"], nil
	})
	answer, err := router.Serve(&Request{Method: "GET", Path: "/users/ada"})
	fmt.Println(answer, err)
}
