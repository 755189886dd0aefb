-- Health of a DataShareProcessor or a KeyRing for Argo CD, from its conditions.
local status = obj.status or {}
local found = {}
for _, condition in ipairs(status.conditions or {}) do
  found[condition.type] = condition
end
local stalled, ready = found["Stalled"], found["Ready"]
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "the operator has not seen the last change yet" }
end
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end
if ready == nil or ready.status == "Unknown" then
  return { status = "Progressing", message = ready and ready.message or "the operator has not looked at it yet" }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
if ready.reason == "NoKeyInUse" then
  return { status = "Progressing", message = ready.message }
end
if ready.reason == "Suspended" then
  return { status = "Suspended", message = ready.message }
end
return { status = "Degraded", message = ready.reason .. ": " .. ready.message }
